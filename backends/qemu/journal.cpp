#include "backends/qemu/journal.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "backends/host/process.h"

namespace exo::qemu {
namespace json = boost::json;
namespace {

constexpr std::string_view prefix = "qemu-";
constexpr std::string_view suffix = ".json";

std::string file_name(pid_t qemu_pid) {
    return std::string{prefix} + std::to_string(qemu_pid) + std::string{suffix};
}

bool same_process(pid_t pid, std::uint64_t start) {
    const auto state = status_field(pid, "State");
    return state && !state->starts_with('Z') && !state->starts_with('X') && start_time_of(pid) == start;
}

constexpr std::chrono::milliseconds lock_interval{10};

// Whether `file` is still what `path` names: a journal is replaced as a whole.
bool is_at(const FileDescriptor& file, const std::string& path) {
    struct stat ours{}, there{};
    return ::fstat(file.get(), &ours) == 0 && ::lstat(path.c_str(), &there) == 0 &&
           ours.st_dev == there.st_dev && ours.st_ino == there.st_ino;
}

std::string text_member(const json::object& object, std::string_view name) {
    const auto* value = object.if_contains(name);
    return value != nullptr && value->is_string() ? std::string{value->get_string()} : std::string{};
}

std::uint64_t number_member(const json::object& object, std::string_view name) {
    const auto* value = object.if_contains(name);
    boost::system::error_code error;
    const auto number = value != nullptr ? value->to_number<std::uint64_t>(error) : 0;
    return error ? 0 : number;
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

}  // namespace

bool JournalEntry::owner_alive() const { return same_process(owner_pid, owner_start); }
bool JournalEntry::qemu_alive() const { return same_process(qemu_pid, qemu_start); }

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

std::string to_text(const JournalEntry& entry) {
    json::array patches;
    for (const auto& patch : entry.patches)
        patches.push_back(json::object{{"place", patch.place}, {"original", patch.original}});
    return json::serialize(json::object{{"target", entry.target},
                                        {"connect", entry.connect},
                                        {"uuid", entry.uuid},
                                        {"qemu_pid", entry.qemu_pid},
                                        {"qemu_start", entry.qemu_start},
                                        {"owner_pid", entry.owner_pid},
                                        {"owner_start", entry.owner_start},
                                        {"was_running", entry.was_running},
                                        {"stub_path", entry.stub_path},
                                        {"stub_directory", entry.stub_directory},
                                        {"user_stub", entry.user_stub},
                                        {"patches", std::move(patches)}});
}

Result<JournalEntry> parse_journal(const std::string& text) {
    boost::system::error_code error;
    const auto parsed = json::parse(text, error);
    if (error || !parsed.is_object()) return fail(Errc::bad_data, "a journal that is not a JSON object");
    const auto& object = parsed.get_object();
    JournalEntry entry;
    entry.target = text_member(object, "target");
    entry.connect = text_member(object, "connect");
    entry.uuid = text_member(object, "uuid");
    entry.qemu_pid = static_cast<pid_t>(number_member(object, "qemu_pid"));
    entry.qemu_start = number_member(object, "qemu_start");
    entry.owner_pid = static_cast<pid_t>(number_member(object, "owner_pid"));
    entry.owner_start = number_member(object, "owner_start");
    const auto* running = object.if_contains("was_running");
    entry.was_running = running != nullptr && running->is_bool() && running->get_bool();
    entry.stub_path = text_member(object, "stub_path");
    entry.stub_directory = text_member(object, "stub_directory");
    entry.user_stub = text_member(object, "user_stub");
    const auto* patches = object.if_contains("patches");
    for (const auto& row : patches != nullptr && patches->is_array() ? patches->get_array() : json::array{}) {
        if (!row.is_object()) return fail(Errc::bad_data, "a journal with a malformed patch");
        entry.patches.push_back({number_member(row.get_object(), "place"),
                                 static_cast<std::uint8_t>(number_member(row.get_object(), "original"))});
    }
    if (entry.target.empty() || entry.qemu_pid <= 0)
        return fail(Errc::bad_data, "a journal without target or pid");
    return entry;
}

// Renamed into place: a reader sees a whole file or none.
Result<void> write_journal(const JournalEntry& entry) {
    const auto directory = TRY(runtime_directory());
    const auto path = directory + "/" + file_name(entry.qemu_pid);
    const auto draft = path + "." + std::to_string(::getpid());
    CHECK_OK(write_file(draft, to_text(entry)));
    if (::rename(draft.c_str(), path.c_str()) == 0) return {};
    auto error = fail(Errc::backend, "journal " + path + ": " + std::strerror(errno));
    ::unlink(draft.c_str());
    return error;
}

std::vector<JournalEntry> read_journals(std::vector<std::string>* broken) {
    std::vector<JournalEntry> entries;
    const auto directory = runtime_directory();
    if (!directory) return entries;
    const std::unique_ptr<DIR, int (*)(DIR*)> files{::opendir(directory->c_str()), &::closedir};
    while (const dirent* file = files ? ::readdir(files.get()) : nullptr) {
        const std::string_view name = file->d_name;
        if (!name.starts_with(prefix) || !name.ends_with(suffix)) continue;
        const auto path = *directory + "/" + std::string{name};
        if (auto entry = parse_journal(read_proc_file(path)))
            entries.push_back(std::move(*entry));
        else if (broken != nullptr)
            broken->push_back(path);
    }
    return entries;
}

void remove_journal(pid_t qemu_pid) {
    if (const auto directory = runtime_directory())
        ::unlink((*directory + "/" + file_name(qemu_pid)).c_str());
}

Result<FileDescriptor> lock_journal(const JournalEntry& entry, std::chrono::milliseconds limit) {
    const auto path = TRY(runtime_directory()) + "/" + file_name(entry.qemu_pid);
    const auto deadline = std::chrono::steady_clock::now() + limit;
    for (;;) {
        FileDescriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW)};
        if (!file.valid() && errno == ENOENT) return FileDescriptor{};
        if (!file.valid()) return fail(Errc::backend, "journal " + path + ": " + std::strerror(errno));
        if (::flock(file.get(), LOCK_EX | LOCK_NB) == 0 && is_at(file, path)) {
            const auto now = TRY(parse_journal(read_proc_file(path)));
            const bool same = now.owner_pid == entry.owner_pid && now.owner_start == entry.owner_start;
            return same ? std::move(file) : FileDescriptor{};
        }
        if (std::chrono::steady_clock::now() > deadline)
            return fail(Errc::busy, "another exogdb has been restoring this guest for a while; try again");
        std::this_thread::sleep_for(lock_interval);
    }
}

}  // namespace exo::qemu
