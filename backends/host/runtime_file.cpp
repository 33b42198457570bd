#include "backends/host/runtime_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "backends/host/process.h"

namespace exo {
namespace {

constexpr std::string_view suffix = ".json";
constexpr std::chrono::milliseconds lock_interval{10};

bool runs(pid_t pid) {
    const auto state = status_field(pid, "State");
    return state && !state->starts_with('Z') && !state->starts_with('X');
}

// Whether `file` is still what `path` names: a journal is replaced as a whole.
bool is_at(const FileDescriptor& file, const std::string& path) {
    struct stat ours{}, there{};
    return ::fstat(file.get(), &ours) == 0 && ::lstat(path.c_str(), &there) == 0 &&
           ours.st_dev == there.st_dev && ours.st_ino == there.st_ino;
}

Result<void> write_file(const std::string& path, const std::string& text) {
    const auto failure = [&] { return fail(Errc::backend, "journal " + path + ": " + std::strerror(errno)); };
    const FileDescriptor file{
        ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600)};
    if (!file.valid()) return failure();
    std::string_view rest = text;
    while (!rest.empty()) {
        const auto count = ::write(file.get(), rest.data(), rest.size());
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return failure();
        rest.remove_prefix(static_cast<std::size_t>(count));
    }
    return {};
}

// What processes were about to write when they were killed.
std::vector<std::string> drafts_of(const std::string& name, const std::string& directory) {
    std::vector<std::string> found;
    const auto prefix = name + ".";
    const std::unique_ptr<DIR, int (*)(DIR*)> files{::opendir(directory.c_str()), &::closedir};
    while (const dirent* file = files ? ::readdir(files.get()) : nullptr) {
        const std::string_view draft = file->d_name;
        if (!draft.starts_with(prefix)) continue;
        pid_t writer = 0;
        const auto digits = draft.substr(prefix.size());
        const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), writer);
        if (error != std::errc{} || end != digits.data() + digits.size() || runs(writer)) continue;
        found.push_back(directory + "/" + std::string{draft});
    }
    return found;
}

}  // namespace

bool same_process(pid_t pid, std::uint64_t start) { return runs(pid) && start_time_of(pid) == start; }

Result<std::string> runtime_directory() {
    std::string path;
    if (::geteuid() == 0)
        path = "/run/exogdb";
    else if (const char* runtime = std::getenv("XDG_RUNTIME_DIR"); runtime != nullptr && *runtime == '/')
        path = std::string{runtime} + "/exogdb";
    else
        path = "/tmp/exogdb-" + std::to_string(::geteuid());
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
        return fail(Errc::denied, "directory " + path + ": " + std::strerror(errno));
    struct stat status{};
    if (::lstat(path.c_str(), &status) != 0 || !S_ISDIR(status.st_mode) || status.st_uid != ::geteuid() ||
        (status.st_mode & 0077) != 0)
        return fail(Errc::denied, path + " is not a directory of this user with mode 0700; remove it");
    return path;
}

Result<void> write_runtime_file(const std::string& name, const std::string& text) {
    const auto path = TRY(runtime_directory()) + "/" + name;
    const auto draft = path + "." + std::to_string(::getpid());
    CHECK_OK(write_file(draft, text));
    if (::rename(draft.c_str(), path.c_str()) == 0) return {};
    auto error = fail(Errc::backend, "journal " + path + ": " + std::strerror(errno));
    ::unlink(draft.c_str());
    return error;
}

void remove_runtime_file(const std::string& name) {
    const auto directory = runtime_directory();
    if (!directory) return;
    for (const auto& draft : drafts_of(name, *directory)) ::unlink(draft.c_str());
    ::unlink((*directory + "/" + name).c_str());
}

std::vector<RuntimeFile> read_runtime_files(std::string_view prefix) {
    std::vector<RuntimeFile> found;
    const auto directory = runtime_directory();
    if (!directory) return found;
    const std::unique_ptr<DIR, int (*)(DIR*)> files{::opendir(directory->c_str()), &::closedir};
    while (const dirent* file = files ? ::readdir(files.get()) : nullptr) {
        const std::string_view name = file->d_name;
        if (!name.starts_with(prefix) || !name.ends_with(suffix)) continue;
        auto path = *directory + "/" + std::string{name};
        auto text = read_proc_file(path);
        found.push_back({std::move(path), std::move(text)});
    }
    return found;
}

Result<FileDescriptor> lock_runtime_file(const std::string& name,
                                         const std::function<Result<bool>(const std::string&)>& is_meant,
                                         std::chrono::milliseconds limit) {
    const auto path = TRY(runtime_directory()) + "/" + name;
    const auto deadline = std::chrono::steady_clock::now() + limit;
    for (;;) {
        FileDescriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW)};
        if (!file.valid() && errno == ENOENT) return FileDescriptor{};
        if (!file.valid()) return fail(Errc::backend, "journal " + path + ": " + std::strerror(errno));
        if (::flock(file.get(), LOCK_EX | LOCK_NB) == 0 && is_at(file, path)) {
            const bool meant = TRY(is_meant(read_proc_file(path)));
            return meant ? std::move(file) : FileDescriptor{};
        }
        if (std::chrono::steady_clock::now() > deadline)
            return fail(Errc::busy, "another exogdb has been restoring this guest for a while; try again");
        std::this_thread::sleep_for(lock_interval);
    }
}

}  // namespace exo
