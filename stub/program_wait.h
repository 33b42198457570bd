// `serve --wait NAME`, and lldb's `process attach --waitfor`: the guest runs until a program of that name
// begins in it, and stands then. The former before anybody listens: a debugger gives up on a server that does
// not answer within seconds.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "stub/machine.h"
#include "stub/run_control.h"

namespace exo::stub {

// Whether a task is called `name`, as the kernel has its name: cut to 15 bytes (TASK_COMM_LEN,
// include/linux/sched.h).
bool has_name(std::string_view comm, std::string_view name);
// The same of a program that begins, which has the name of its script or link, or of the file that is run.
// `path` is that of the file, empty where it is not known.
bool is_program(std::string_view comm, std::string_view path, std::string_view name);

class ProgramWait {
public:
    using Tell = std::function<void(std::string_view line)>;  // for the user, while it lasts

    ProgramWait(Machine& machine, std::string name, Tell tell);

    // The guest runs, and is watched. Where no OS is recognised yet, its kernel is waited for first. After an
    // error of this or of poll() the guest is as it was found. All but stop() is to be called where the
    // target's other calls come from.
    Result<void> begin();
    // The PID of the process once there is one, nothing within `limit`. The guest stands then, with no
    // breakpoint in it, and the process is before its first instruction in user mode.
    Result<std::optional<std::int64_t>> poll(std::chrono::milliseconds limit);
    // In place of poll(): the guest as it was found.
    Result<void> cancel();

    // All of that, until stop(): nothing then.
    Result<std::optional<std::int64_t>> run();
    // Any thread.
    void stop() noexcept;

private:
    using Clock = std::chrono::steady_clock;

    Result<void> check_can_begin();
    Result<void> check_kernel();
    void tell_of_others();
    Result<void> attach();
    Result<void> go_on();
    Result<void> step_to_user_mode();
    Result<std::optional<std::int64_t>> next(std::chrono::milliseconds limit);
    Result<void> check_stop(const RunControl::Stop& stop);
    Result<void> look_again();
    [[nodiscard]] bool is_awaited(const os::Task& task);

    Machine& machine_;
    std::string name_;
    Tell tell_;
    RunControl control_;
    std::optional<RunControl::Stop> begun_;  // it has, and is on its way to user mode
    std::uint64_t told_generation_ = 0;      // of the kernel that the user knows of
    bool own_stop_ = false;                  // is on its way
    Clock::time_point next_look_{};
    std::atomic<bool> stopping_{false};
};

}  // namespace exo::stub
