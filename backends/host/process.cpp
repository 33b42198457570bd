#include "backends/host/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

namespace exo {
namespace {

std::string proc_path(pid_t pid, std::string_view file) {
    return "/proc/" + std::to_string(pid) + "/" + std::string{file};
}

std::string_view take_word(std::string_view& text) {
    const auto start = text.find_first_not_of(' ');
    if (start == std::string_view::npos) {
        text = {};
        return {};
    }
    text.remove_prefix(start);
    const auto word = text.substr(0, text.find(' '));
    text.remove_prefix(word.size());
    return word;
}

std::optional<std::uint64_t> number(std::string_view text, int base) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

// A numeric field of proc(5)'s stat, in the folder of a process or thread.
std::optional<std::uint64_t> stat_field(const std::string& folder, int wanted) {
    const auto text = read_proc_file(folder + "/stat");
    // The command in field 2 may hold blanks and parentheses: count from its last ')'.
    const auto close = text.rfind(')');
    if (close == std::string::npos) return std::nullopt;
    auto rest = std::string_view{text}.substr(close + 1);
    for (int field = 3; field < wanted; ++field) take_word(rest);
    return number(take_word(rest), 10);
}

}  // namespace

Result<Process> Process::open(pid_t pid) {
    Process process;
    process.pid_ = pid;
    process.pidfd_ = FileDescriptor{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))};
    if (!process.pidfd_.valid()) {
        return fail(errno == ESRCH ? Errc::target_gone : Errc::backend,
                    "pidfd of process " + std::to_string(pid) + ": " + std::strerror(errno));
    }
    process.start_time_ = start_time_of(pid).value_or(0);
    return process;
}

bool Process::alive() const {
    pollfd poll_fd{pidfd_.get(), POLLIN, 0};
    return ::poll(&poll_fd, 1, 0) == 0;
}

bool Process::ending() const {
    constexpr unsigned long exiting = 0x4;  // PF_EXITING, include/linux/sched.h
    constexpr int most_looks = 100;
    constexpr int between_looks = 2;  // milliseconds
    const std::string main_thread = "/proc/" + std::to_string(pid_);
    for (int look = 0; look < most_looks; ++look) {
        pollfd poll_fd{pidfd_.get(), POLLIN, 0};
        if (::poll(&poll_fd, 1, look == 0 ? 0 : between_looks) != 0) return true;
        if ((flags_of_thread(main_thread).value_or(0) & exiting) != 0) return true;
    }
    return false;
}

std::string read_proc_file(const std::string& path) {
    const FileDescriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    std::string text;
    if (!file.valid()) return text;
    char buffer[16384];
    for (;;) {
        const auto count = ::read(file.get(), buffer, sizeof buffer);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return text;
        text.append(buffer, static_cast<std::size_t>(count));
    }
}

std::optional<std::uint64_t> start_time_of(pid_t pid) {
    return stat_field("/proc/" + std::to_string(pid), 22);
}

std::optional<std::uint64_t> flags_of_thread(const std::string& folder) { return stat_field(folder, 9); }

std::optional<std::string> status_field(pid_t pid, std::string_view field) {
    const auto text = read_proc_file(proc_path(pid, "status"));
    const std::string key = std::string{"\n"}.append(field).append(":");
    const auto at = text.find(key);
    if (at == std::string::npos) return std::nullopt;
    const auto start = text.find_first_not_of(" \t", at + key.size());
    const auto end = text.find('\n', at + key.size());
    if (start == std::string::npos || end == std::string::npos || start > end) return std::nullopt;
    return text.substr(start, end - start);
}

std::optional<pid_t> process_of_thread(pid_t tid) {
    const auto group = status_field(tid, "Tgid");
    if (!group) return std::nullopt;
    const auto pid = number(*group, 10);
    if (!pid || *pid == 0) return std::nullopt;
    return static_cast<pid_t>(*pid);
}

bool has_thread(pid_t pid, pid_t tid) {
    const auto directory = proc_path(pid, "task");
    if (::access((directory + "/" + std::to_string(tid)).c_str(), F_OK) == 0) return true;
    const std::unique_ptr<DIR, int (*)(DIR*)> entries{::opendir(directory.c_str()), &::closedir};
    while (const dirent* entry = entries ? ::readdir(entries.get()) : nullptr) {
        const auto thread = number(entry->d_name, 10);
        const auto ids = thread ? status_field(static_cast<pid_t>(*thread), "NSpid") : std::nullopt;
        const auto last = ids ? ids->find_last_of("\t ") : std::string::npos;
        if (last == std::string::npos) continue;  // one number: no namespace of its own
        if (number(std::string_view{*ids}.substr(last + 1), 10) == static_cast<std::uint64_t>(tid))
            return true;
    }
    return false;
}

std::string command_line_of(pid_t pid) {
    auto text = read_proc_file(proc_path(pid, "cmdline"));
    for (auto& character : text)
        if (character == '\0') character = ' ';
    return text;
}

std::vector<Mapping> parse_maps(std::string_view text) {
    std::vector<Mapping> mappings;
    while (!text.empty()) {
        auto line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(text.size(), line.size() + 1));
        const auto range = take_word(line);
        const auto permissions = take_word(line);
        const auto offset = take_word(line);
        const auto device = take_word(line);
        const auto inode = take_word(line);
        const auto dash = range.find('-');
        if (dash == std::string_view::npos || permissions.size() < 4) continue;
        const auto start = number(range.substr(0, dash), 16);
        const auto end = number(range.substr(dash + 1), 16);
        if (!start || !end || *start >= *end) continue;
        const auto path = line.find_first_not_of(' ');
        mappings.push_back({.start = *start,
                            .end = *end,
                            .readable = permissions[0] == 'r',
                            .writable = permissions[1] == 'w',
                            .executable = permissions[2] == 'x',
                            .shared = permissions[3] == 's',
                            .offset = number(offset, 16).value_or(0),
                            .inode = number(inode, 10).value_or(0),
                            .device = std::string{device},
                            .path = path == std::string_view::npos ? "" : std::string{line.substr(path)}});
    }
    return mappings;
}

}  // namespace exo
