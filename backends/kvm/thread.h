// One thread of a VMM under ptrace(2). All calls come from the thread that seized it.
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <cstdint>
#include <optional>

#include "backends/api/result.h"

namespace exo::kvm {

using ThreadRegisters = user_regs_struct;

struct ThreadStop {
    enum class Kind : std::uint8_t {
        interrupted,  // PTRACE_INTERRUPT's, or a group stop
        syscall,      // entry to or exit from one, after Resume::to_syscall
        signal,       // one that is about to be delivered
        ended,        // the thread is gone
    };
    Kind kind = Kind::ended;
    int signal = 0;
    bool group = false;  // interrupted: the whole process is stopped (SIGSTOP)
};

class TracedThread {
public:
    // PTRACE_SEIZE: the thread goes on. Its seccomp filter, if it has one, is lifted for that time. denied
    // names the cause (yama, another tracer, the filter) and the remedy.
    static Result<TracedThread> seize(pid_t tid);
    // Whether seize() would do. The thread is not stopped, so that it goes on whatever it does.
    static Result<void> try_to_seize(pid_t tid);
    TracedThread(TracedThread&& other) noexcept;
    TracedThread& operator=(TracedThread&& other) noexcept;
    // A stopped one is let go as it is; who stopped it puts its registers right before.
    ~TracedThread();

    [[nodiscard]] pid_t tid() const { return tid_; }
    [[nodiscard]] bool stopped() const { return stopped_; }

    // Asks a running thread to stop; the stop comes out of poll() or wait().
    void interrupt();
    enum class Resume : std::uint8_t { freely, to_syscall };
    // `signal` is delivered; only after a stop of kind `signal`.
    Result<void> resume(Resume how, int signal = 0);
    // Stops at the entry or the exit that comes next, whatever else it is asked to stop for. False if it has
    // ended. Not by PTRACE_SINGLESTEP, which needs one stop less: its SIGTRAP kills the VMM if the tracer
    // dies before it has seen it, where that of a system call is none (send_sig_info(), kernel/signal.c,
    // takes no signal 0x85).
    Result<bool> go_to_syscall();
    // The next stop, if it is there.
    std::optional<ThreadStop> poll();
    // Blocks. For stops that come soon, whatever the guest does.
    ThreadStop wait();
    // Lets a stopped thread go, for good. Of a running one nothing is known: it is stopped first.
    void detach(int signal = 0);

    Result<ThreadRegisters> registers() const;
    Result<void> set_registers(const ThreadRegisters& registers);
    Result<std::uint64_t> signal_mask() const;
    Result<void> set_signal_mask(std::uint64_t mask);
    // ptrace's own writing, which also writes where the thread may not.
    Result<void> poke(std::uint64_t address, std::uint64_t word);

private:
    explicit TracedThread(pid_t tid) : tid_(tid) {}
    ThreadStop take(int status);
    void reap() const;

    pid_t tid_ = 0;  // 0: moved from, detached or ended
    bool stopped_ = false;
};

}  // namespace exo::kvm
