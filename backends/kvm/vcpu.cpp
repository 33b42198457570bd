#include "backends/kvm/vcpu.h"

#include <asm/unistd.h>
#include <sys/ptrace.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

#include "backends/kvm/child_events.h"

namespace exo::kvm {
namespace {

// How long the end of a step is waited for before its thread is made to stop there.
constexpr std::chrono::milliseconds posted_limit{5};
constexpr std::uint64_t our_fields = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;

}  // namespace

bool Vcpu::is_run(const ThreadRegisters& registers) const {
    return registers.orig_rax == __NR_ioctl && static_cast<int>(registers.rdi) == handle_.fd &&
           static_cast<std::uint32_t>(registers.rsi) == KVM_RUN;
}

// --- stopping

Result<void> Vcpu::ask_for_registers() {
    if (asked_) return {};
    const auto offset = offsetof(kvm_run, kvm_valid_regs);
    valid_before_ = TRY(get_run<std::uint64_t>(offset));
    CHECK_OK(put_run(offset, valid_before_ | our_fields));
    asked_ = true;
    return {};
}

Result<void> Vcpu::stop_asking() {
    if (!std::exchange(asked_, false)) return {};
    return put_run(offsetof(kvm_run, kvm_valid_regs), valid_before_);
}

Result<void> Vcpu::begin_stop(pid_t tid) {
    thread_ = TRY(tracer_->run([&] { return TracedThread::seize(tid); }));
    tid_ = tid;
    held_ = false;
    place_ = Place::vmm;
    ask_to_stop();
    return {};
}

void Vcpu::ask_to_stop() {
    stopping_ = true;
    insisting_ = false;
    if (posted_) return watch();
    tracer_->run([&] { thread_->interrupt(); });
}

void Vcpu::insist() {
    insisting_ = true;
    if (posted_) return;
    tracer_->run([&] { thread_->interrupt(); });
}

Result<bool> Vcpu::hold(pid_t tid, Clock::time_point deadline) {
    const pid_t own = tid_;
    auto held = tracer_->run([&] { return hold_traced(tid, deadline); });
    // A thread that was only tried is let go.
    if (!stopped()) tracer_->run([&] { let_go(); });
    tid_ = own;
    return held;
}

Result<bool> Vcpu::hold_traced(pid_t tid, Clock::time_point deadline) {
    CHECK_OK(begin_stop(tid));
    for (Insistence again{Clock::now()}; Clock::now() < deadline;) {
        if (again.is_due(Clock::now())) insist();
        const auto exit = TRY(poll_exit());
        if (exit.kind == RunExit::Kind::gone) return fail(vmm_gone());
        if (stopped()) return true;
        wait_for_child(std::min(deadline, again.next()));
    }
    return false;
}

Result<void> Vcpu::make_exit_harmless() {
    if (held_) return {};
    CHECK_OK(unpark());
    auto area = TRY(run_area());
    area.exit_reason = KVM_EXIT_MMIO;
    area.mmio = {.phys_addr = 0, .data = {}, .len = 0, .is_write = 1};
    return memory_->write(
        handle_.run, std::as_bytes(std::span{&area, 1}).first(offsetof(kvm_run, mmio) + sizeof area.mmio));
}

// --- running

// Straight into the guest, and not by the VMM's next KVM_RUN: should exogdb be killed before that, the VMM
// would see the guest's next breakpoint.
Result<void> Vcpu::run() {
    stopping_ = stepping_ = false;
    kernel_gs_.reset();
    return tracer_->run(
        [&] { return held_ ? give_to_vmm(static_cast<std::int64_t>(home_.rax)) : enter_from_board(); });
}

Result<void> Vcpu::enter_from_board() {
    CHECK_OK(unpark());
    CHECK_OK(go_away());
    CHECK_OK(prepare_call(__NR_ioctl, static_cast<std::uint64_t>(handle_.fd), KVM_RUN, 0));
    if (!TRY(thread_->go_to_syscall())) return fail(vmm_gone());
    // The VMM's signals call the vCPU out of the guest; a step is over soon enough.
    if (!stepping_) CHECK_OK(thread_->set_signal_mask(mask_));
    CHECK_OK(thread_->resume(TracedThread::Resume::to_syscall));
    on_board_ = true;
    return {};
}

Result<void> Vcpu::give_to_vmm(std::int64_t result) {
    home_.rax = static_cast<std::uint64_t>(result);
    CHECK_OK(go_home());
    place_ = Place::vmm;
    return thread_->resume(TracedThread::Resume::to_syscall);
}

Result<void> Vcpu::release() {
    if (place_ == Place::free) return {};
    return tracer_->run([&]() -> Result<void> {
        Result<void> home;
        if (thread_ && thread_->tid() != 0 && stopped()) home = go_home();
        let_go();
        return home;
    });
}

void Vcpu::let_go() {
    thread_.reset();
    place_ = Place::free;
    held_ = stopping_ = insisting_ = stepping_ = false;
    on_board_ = parked_ = posted_ = interrupting_ = masked_ = asked_for_gs_ = false;
    kernel_gs_.reset();
}

// At the entry to the VMM's own KVM_RUN. Its way back leads to the springboard: rip of a thread at the entry
// is where the kernel returns to.
Result<void> Vcpu::send_into_guest(ThreadRegisters registers) {
    home_ = registers;
    home_.rax = static_cast<std::uint64_t>(-EINTR);
    home_.orig_rax = no_system_call;
    if (board_ != nullptr && board_->present()) {
        CHECK_OK(keep_record(false));
        registers.rip = board_->after();
        CHECK_OK(thread_->set_registers(registers));
    }
    if (stopping_) CHECK_OK(set_immediate_exit(true));
    place_ = Place::guest;
    return thread_->resume(TracedThread::Resume::to_syscall);
}

// At the entry to the VMM's KVM_RUN: ours is made instead.
Result<RunExit> Vcpu::take_over(ThreadRegisters registers) {
    registers.orig_rax = no_system_call;  // at the entry: the call is left out, and this its result
    registers.rax = static_cast<std::uint64_t>(-EINTR);
    CHECK_OK(thread_->set_registers(registers));
    if (!TRY(thread_->go_to_syscall())) return fail(vmm_gone());
    home_ = registers;
    place_ = Place::home;
    CHECK_OK(set_halted(false));
    if (stopping_) {
        CHECK_OK(refresh());  // what the VMM has emulated
        return RunExit{.kind = RunExit::Kind::interrupted};
    }
    if (stepping_) CHECK_OK(set_guest_debug(step_debug_));
    CHECK_OK(enter_from_board());
    return RunExit{};
}

Result<RunExit> Vcpu::take_syscall_stop() {
    const auto registers = TRY(thread_->registers());
    __ptrace_syscall_info info{};
    ::ptrace(static_cast<__ptrace_request>(PTRACE_GET_SYSCALL_INFO), thread_->tid(), sizeof info, &info);
    const bool entry = info.op == PTRACE_SYSCALL_INFO_ENTRY;
    if (is_run(registers) && entry && (stepping_ || halted_)) return take_over(registers);
    if (is_run(registers) && entry) {
        CHECK_OK(send_into_guest(registers));
        return RunExit{};
    }
    if (place_ == Place::guest) {  // back from it
        const bool away = board_ != nullptr && registers.rip == board_->after();
        place_ = away ? Place::away : Place::home;
        return returned(static_cast<std::int64_t>(registers.rax));
    }
    CHECK_OK(thread_->resume(TracedThread::Resume::to_syscall));
    return RunExit{};
}

Result<RunExit> Vcpu::take_stop(const ThreadStop& stop) {
    using StopKind = ThreadStop::Kind;
    if (stop.kind == StopKind::ended) {
        let_go();
        tid_ = 0;
        return RunExit{.kind = RunExit::Kind::gone};
    }
    if (parked_) return take_parked_stop();
    if (on_board_) {
        if (stop.kind != StopKind::syscall) {
            CHECK_OK(thread_->resume(TracedThread::Resume::to_syscall));
            return RunExit{};
        }
        on_board_ = false;
        return returned(static_cast<std::int64_t>(TRY(thread_->registers()).rax));
    }
    if (stop.kind == StopKind::syscall) return take_syscall_stop();
    if (stop.kind == StopKind::interrupted && place_ == Place::vmm && stopping_)
        return take_interrupted_stop();
    CHECK_OK(
        thread_->resume(TracedThread::Resume::to_syscall, stop.kind == StopKind::signal ? stop.signal : 0));
    return RunExit{};
}

Result<RunExit> Vcpu::take_interrupted_stop() {
    const auto registers = TRY(thread_->registers());
    // Taken out of a KVM_RUN whose beginning was not seen.
    if (is_run(registers)) {
        home_ = registers;
        home_.orig_rax = no_system_call;
        place_ = Place::home;
        return returned(static_cast<std::int64_t>(registers.rax));
    }
    if (insisting_ && static_cast<std::int64_t>(registers.orig_rax) >= 0) {
        home_ = restarted(registers);
        place_ = Place::home;
        held_ = true;
        CHECK_OK(set_halted(false));
        return RunExit{.kind = RunExit::Kind::interrupted};
    }
    CHECK_OK(thread_->resume(TracedThread::Resume::to_syscall));
    return RunExit{};
}

// Home or away, KVM_RUN has ended. What is not ours is the VMM's: it goes on with it.
Result<RunExit> Vcpu::returned(std::int64_t result) {
    if (immediate_exit_) CHECK_OK(set_immediate_exit(false));
    const bool cut_short = result == -EINTR || result == -EAGAIN;
    if (cut_short && stopping_) {
        home_.rax = static_cast<std::uint64_t>(result);
        return RunExit{.kind = RunExit::Kind::interrupted};
    }
    if (result == 0) {
        const auto area = TRY(run_area());
        if (area.exit_reason == KVM_EXIT_DEBUG && debug_.control != 0) {
            last_ = area.s.regs.regs;
            home_.rax = static_cast<std::uint64_t>(-EINTR);
            return RunExit{.kind = RunExit::Kind::debug, .debug = area.debug.arch};
        }
    }
    if (debug_.control != 0) {
        // The ioctls that follow must not make the VMM lose its exit should exogdb be killed.
        home_.rax = static_cast<std::uint64_t>(result);
        if (place_ == Place::away) CHECK_OK(keep_record(masked_));
        if (stepping_) {  // the VMM's next KVM_RUN must not make the step
            step_debug_ = debug_;
            auto without = debug_;
            without.control &= ~static_cast<std::uint32_t>(KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ);
            CHECK_OK(set_guest_debug(without));
        }
        CHECK_OK(set_halted(true));
    }
    CHECK_OK(tracer_->run([&] { return give_to_vmm(result); }));
    return RunExit{};
}

Result<RunExit> Vcpu::poll_exit() {
    while (!stopped() && place_ != Place::free) {
        // One that was asked to stop will, even if it is done by now.
        const bool done = posted_ && !interrupting_ && is_done(mailbox());
        const auto stop = done ? std::nullopt : thread_->poll();
        if (!done && !stop) return RunExit{};
        auto exit = TRY(done ? returned(take_posted()) : tracer_->run([&] { return take_stop(*stop); }));
        if (exit.kind != RunExit::Kind::none) return exit;
    }
    return RunExit{};
}

Result<RunExit> Vcpu::wait_exit(Clock::time_point deadline) {
    if (posted_ && !interrupting_ && !wait_posted(std::min(deadline, Clock::now() + posted_limit))) watch();
    for (;;) {
        auto exit = TRY(poll_exit());
        if (exit.kind != RunExit::Kind::none || Clock::now() >= deadline) return exit;
        wait_for_child(deadline);
    }
}

}  // namespace exo::kvm
