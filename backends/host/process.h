// A VMM's process, as /proc tells it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/result.h"
#include "backends/host/file_descriptor.h"

namespace exo {

// Held by a pidfd, so that a pid that is used again is never taken for it.
class Process {
public:
    static Result<Process> open(pid_t pid);

    [[nodiscard]] pid_t pid() const { return pid_; }
    [[nodiscard]] bool alive() const;
    // Of one that has lost a thread: whether all of it is about to end. Its threads do so one after the
    // other, and it is alive until its memory is freed.
    [[nodiscard]] bool ending() const;
    // Readable (POLLIN) once the process has ended.
    [[nodiscard]] int pidfd() const { return pidfd_.get(); }
    // Clock ticks after boot (proc(5), stat field 22): with the pid it names a process for good.
    [[nodiscard]] std::uint64_t start_time() const { return start_time_; }

private:
    pid_t pid_ = 0;
    FileDescriptor pidfd_;
    std::uint64_t start_time_ = 0;
};

std::optional<std::uint64_t> start_time_of(pid_t pid);
// The process that the thread `tid` belongs to.
std::optional<pid_t> process_of_thread(pid_t tid);
// Whether the process has a thread that is `tid` here or in the process' own pid namespace.
bool has_thread(pid_t pid, pid_t tid);
// PF_… (include/linux/sched.h) of the process or thread of that folder ("/proc/4711/task/4712").
std::optional<std::uint64_t> flags_of_thread(const std::string& folder);
// NULs replaced by blanks; empty if it cannot be read.
std::string command_line_of(pid_t pid);
// One field of /proc/PID/status, without the blanks around it.
std::optional<std::string> status_field(pid_t pid, std::string_view field);
// Whole small files of /proc: empty if it cannot be read.
std::string read_proc_file(const std::string& path);

// One line of /proc/PID/maps (proc(5)).
struct Mapping {
    std::uint64_t start = 0;
    std::uint64_t end = 0;
    bool readable = false;
    bool writable = false;
    bool executable = false;
    bool shared = false;
    std::uint64_t offset = 0;  // in the file
    std::uint64_t inode = 0;   // 0: anonymous
    std::string device;        // "00:01"
    std::string path;
};
std::vector<Mapping> parse_maps(std::string_view text);

}  // namespace exo
