#include "backends/kvm/thread.h"

#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

#include "backends/host/process.h"

namespace exo::kvm {
namespace {

constexpr int syscall_stop = SIGTRAP | 0x80;  // PTRACE_O_TRACESYSGOOD
constexpr std::size_t mask_size = 8;          // bytes of the kernel's sigset_t
constexpr std::chrono::milliseconds let_go_limit{1000};
constexpr std::chrono::microseconds let_go_interval{100};

Error ptrace_error(pid_t tid, const char* what) {
    const int error = errno;
    const std::string thread = "thread " + std::to_string(tid) + " of the VMM";
    if (error == ESRCH) return {Errc::target_gone, thread + " has ended"};
    std::string message = std::string{what} + " " + thread + ": " + std::strerror(error);
    if (error != EPERM && error != EACCES) return {Errc::backend, std::move(message)};
    const auto tracer = status_field(tid, "TracerPid");
    if (tracer && *tracer != "0")
        return {Errc::busy, message + ": process " + *tracer + " traces it (strace, a debugger); end that"};
    const auto scope = read_proc_file("/proc/sys/kernel/yama/ptrace_scope");
    const bool yama = !scope.empty() && scope.front() != '0';
    return {Errc::denied, message +
                              (yama ? " (kernel.yama.ptrace_scope is " + scope.substr(0, 1) + ")" : "") +
                              "; run as root, or as its user with CAP_SYS_PTRACE"};
}

}  // namespace

Result<TracedThread> TracedThread::seize(pid_t tid) {
    // Never PTRACE_O_EXITKILL: the guest outlives its debugger.
    constexpr long options = PTRACE_O_TRACESYSGOOD;
    // A sandboxed thread would be killed for a system call that its filter does not know. Whether there is a
    // filter does not matter to the kernel, and to find out takes longer than all else here.
    if (::ptrace(PTRACE_SEIZE, tid, nullptr, options | PTRACE_O_SUSPEND_SECCOMP) == 0)
        return TracedThread{tid};
    const int error = errno;
    const auto filter = status_field(tid, "Seccomp");
    const bool sandboxed = filter && *filter != "0";
    if (!sandboxed && ::ptrace(PTRACE_SEIZE, tid, nullptr, options) == 0) return TracedThread{tid};
    if (sandboxed && error == EINVAL)
        return fail(Errc::unsupported,
                    "the VMM filters its system calls (seccomp), and this host's kernel "
                    "cannot lift that (CONFIG_CHECKPOINT_RESTORE); start the VMM without its sandbox");
    if (sandboxed && error == EPERM && status_field(tid, "TracerPid").value_or("0") == "0")
        return fail(Errc::denied,
                    "the VMM filters its system calls (seccomp), and to lift that while it is traced "
                    "needs CAP_SYS_ADMIN; run as root");
    errno = error;
    return fail(ptrace_error(tid, "tracing"));
}

// PTRACE_DETACH takes stopped threads only. A tracer that ends lets go of those that run as well
// (exit_ptrace(), kernel/ptrace.c), a moment after join() has returned: do_exit() wakes that before.
Result<void> TracedThread::try_to_seize(pid_t tid) {
    Result<void> result;
    pid_t tracer = 0;
    std::thread{[&] {
        tracer = ::gettid();
        auto thread = seize(tid);
        if (thread)
            thread->tid_ = 0;
        else
            result = fail(std::move(thread).error());
    }}.join();
    const auto deadline = std::chrono::steady_clock::now() + let_go_limit;
    while (result && status_field(tid, "TracerPid") == std::to_string(tracer)) {
        if (std::chrono::steady_clock::now() > deadline)
            return fail(Errc::timed_out, "thread " + std::to_string(tid) + " of the VMM is not let go");
        std::this_thread::sleep_for(let_go_interval);
    }
    return result;
}

TracedThread::TracedThread(TracedThread&& other) noexcept
    : tid_(std::exchange(other.tid_, 0)), stopped_(std::exchange(other.stopped_, false)) {}

TracedThread& TracedThread::operator=(TracedThread&& other) noexcept {
    std::swap(tid_, other.tid_);
    std::swap(stopped_, other.stopped_);
    return *this;
}

TracedThread::~TracedThread() { detach(); }

void TracedThread::interrupt() {
    if (!stopped_ && tid_ != 0) ::ptrace(PTRACE_INTERRUPT, tid_, nullptr, nullptr);
}

Result<void> TracedThread::resume(Resume how, int signal) {
    const auto request = how == Resume::freely ? PTRACE_CONT : PTRACE_SYSCALL;
    if (::ptrace(request, tid_, nullptr, signal) != 0) return fail(ptrace_error(tid_, "resuming"));
    stopped_ = false;
    return {};
}

ThreadStop TracedThread::take(int status) {
    if (WIFEXITED(status) || WIFSIGNALED(status)) {
        tid_ = 0;
        stopped_ = false;
        return {ThreadStop::Kind::ended, 0, false};
    }
    stopped_ = true;
    const int signal = WSTOPSIG(status);
    if (signal == syscall_stop) return {ThreadStop::Kind::syscall, 0, false};
    if (status >> 16 == PTRACE_EVENT_STOP) return {ThreadStop::Kind::interrupted, 0, signal != SIGTRAP};
    return {ThreadStop::Kind::signal, signal, false};
}

Result<bool> TracedThread::go_to_syscall() {
    for (;;) {
        CHECK_OK(resume(Resume::to_syscall));
        const auto stop = wait();
        if (stop.kind == ThreadStop::Kind::ended) return false;
        if (stop.kind == ThreadStop::Kind::syscall) return true;
    }
}

std::optional<ThreadStop> TracedThread::poll() {
    if (tid_ == 0) return ThreadStop{};
    int status = 0;
    const pid_t found = ::waitpid(tid_, &status, __WALL | WNOHANG);
    if (found == 0) return std::nullopt;
    if (found == tid_) return take(status);
    tid_ = 0;
    return ThreadStop{};
}

ThreadStop TracedThread::wait() {
    int status = 0;
    while (tid_ != 0) {
        const pid_t found = ::waitpid(tid_, &status, __WALL);
        if (found == tid_) return take(status);
        if (errno != EINTR) tid_ = 0;
    }
    return {};
}

void TracedThread::detach(int signal) {
    if (tid_ == 0) return;
    if (!stopped_) {
        interrupt();
        const auto stop = wait();
        if (stop.kind == ThreadStop::Kind::signal) signal = stop.signal;
    }
    if (tid_ != 0 && ::ptrace(PTRACE_DETACH, tid_, nullptr, signal) != 0) reap();
    tid_ = 0;
    stopped_ = false;
}

// Of a thread that was killed while it stood. Until its tracer has seen that, its process has ended for
// nobody: not for wait(2), and not for a pidfd. The first thread's end is told last.
void TracedThread::reap() const {
    const auto deadline = std::chrono::steady_clock::now() + let_go_limit;
    while (::waitpid(tid_, nullptr, __WALL | WNOHANG) == 0 && std::chrono::steady_clock::now() < deadline)
        std::this_thread::sleep_for(let_go_interval);
}

Result<ThreadRegisters> TracedThread::registers() const {
    ThreadRegisters registers{};
    if (::ptrace(PTRACE_GETREGS, tid_, nullptr, &registers) != 0)
        return fail(ptrace_error(tid_, "reading the registers of"));
    return registers;
}

Result<void> TracedThread::set_registers(const ThreadRegisters& registers) {
    if (::ptrace(PTRACE_SETREGS, tid_, nullptr, &registers) != 0)
        return fail(ptrace_error(tid_, "writing the registers of"));
    return {};
}

Result<std::uint64_t> TracedThread::signal_mask() const {
    std::uint64_t mask = 0;
    if (::ptrace(static_cast<__ptrace_request>(PTRACE_GETSIGMASK), tid_, mask_size, &mask) != 0)
        return fail(ptrace_error(tid_, "reading the signal mask of"));
    return mask;
}

Result<void> TracedThread::set_signal_mask(std::uint64_t mask) {
    if (::ptrace(static_cast<__ptrace_request>(PTRACE_SETSIGMASK), tid_, mask_size, &mask) != 0)
        return fail(ptrace_error(tid_, "writing the signal mask of"));
    return {};
}

Result<void> TracedThread::poke(std::uint64_t address, std::uint64_t word) {
    if (::ptrace(PTRACE_POKEDATA, tid_, address, word) != 0) return fail(ptrace_error(tid_, "writing to"));
    return {};
}

}  // namespace exo::kvm
