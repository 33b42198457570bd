#include "backends/kvm/vcpu.h"

#include <asm/unistd.h>
#include <sys/ptrace.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

#include "backends/kvm/child_events.h"

namespace exo::kvm {
namespace {

constexpr std::uint64_t no_call = ~std::uint64_t{0};  // orig_rax of a thread that is in no system call
constexpr std::uint64_t all_signals = ~std::uint64_t{0};
constexpr std::uint64_t our_fields = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;

}  // namespace

bool Vcpu::is_run(const ThreadRegisters& registers) const {
    return registers.orig_rax == __NR_ioctl && static_cast<int>(registers.rdi) == handle_.fd &&
           static_cast<std::uint32_t>(registers.rsi) == KVM_RUN;
}

Result<void> Vcpu::set_immediate_exit(bool value) {
    immediate_exit_ = value;
    return memory_->put<std::uint8_t>(handle_.run + offsetof(kvm_run, immediate_exit), value ? 1 : 0);
}

// --- stopping

Result<void> Vcpu::ask_for_registers() {
    if (asked_) return {};
    const auto address = handle_.run + offsetof(kvm_run, kvm_valid_regs);
    valid_before_ = TRY(memory_->get<std::uint64_t>(address));
    CHECK_OK(memory_->put(address, valid_before_ | our_fields));
    asked_ = true;
    return {};
}

Result<void> Vcpu::stop_asking() {
    if (!std::exchange(asked_, false)) return {};
    return memory_->put(handle_.run + offsetof(kvm_run, kvm_valid_regs), valid_before_);
}

Result<void> Vcpu::begin_stop(pid_t tid) {
    thread_ = TRY(TracedThread::seize(tid));
    tid_ = tid;
    held_ = false;
    place_ = Place::vmm;
    ask_to_stop();
    return {};
}

void Vcpu::ask_to_stop() {
    stopping_ = true;
    thread_->interrupt();
}

Result<bool> Vcpu::hold(pid_t tid, Clock::time_point deadline) {
    if (place_ == Place::free) {
        thread_ = TRY(TracedThread::seize(tid));
        place_ = Place::vmm;
    }
    thread_->interrupt();
    while (Clock::now() < deadline) {
        const auto stop = thread_->poll();
        if (!stop) {
            wait_for_child(deadline);
            continue;
        }
        if (stop->kind == ThreadStop::Kind::ended) return fail(vmm_gone());
        if (stop->kind == ThreadStop::Kind::interrupted) {
            const auto registers = TRY(thread_->registers());
            if (static_cast<std::int64_t>(registers.orig_rax) >= 0 && !is_run(registers)) {
                home_ = restarted(registers);
                place_ = Place::home;
                held_ = true;
                CHECK_OK(set_halted(false));
                return true;
            }
        }
        CHECK_OK(thread_->resume(TracedThread::Resume::freely,
                                 stop->kind == ThreadStop::Kind::signal ? stop->signal : 0));
        thread_->interrupt();
    }
    return false;
}

// --- while stopped

Result<void> Vcpu::keep_record(bool mask_saved) {
    const ThreadRecord record{.tid = static_cast<std::uint64_t>(thread_->tid()),
                              .mask_saved = mask_saved ? 1U : 0U,
                              .signal_mask = mask_,
                              .halted = halted_ ? 1U : 0U,
                              .home = home_};
    return memory_->put(board_->record(index_), record);
}

Result<void> Vcpu::go_away() {
    if (place_ == Place::away && masked_) return thread_->set_signal_mask(all_signals);
    mask_ = TRY(thread_->signal_mask());
    CHECK_OK(keep_record(true));
    CHECK_OK(thread_->set_signal_mask(all_signals));
    masked_ = true;
    place_ = Place::away;
    return {};
}

Result<void> Vcpu::go_home() {
    if (place_ == Place::home) return thread_->set_registers(home_);
    if (masked_) CHECK_OK(thread_->set_signal_mask(mask_));
    masked_ = false;
    CHECK_OK(thread_->set_registers(home_));
    place_ = Place::home;
    return memory_->put(board_->record(index_), ThreadRecord{.halted = halted_ ? 1U : 0U});
}

// The thread's next instruction is the springboard's system call.
Result<void> Vcpu::prepare_call(std::int64_t number, std::uint64_t a, std::uint64_t b, std::uint64_t c) {
    auto registers = home_;
    registers.rip = board_->code;
    registers.rax = static_cast<std::uint64_t>(number);
    registers.orig_rax = no_call;
    registers.rdi = a;
    registers.rsi = b;
    registers.rdx = c;
    return thread_->set_registers(registers);
}

Result<std::int64_t> Vcpu::call(std::int64_t number, std::uint64_t a, std::uint64_t b, std::uint64_t c) {
    CHECK_OK(go_away());
    CHECK_OK(prepare_call(number, a, b, c));
    for (int stop = 0; stop < 2; ++stop)  // entry and exit
        if (!TRY(thread_->go_to_syscall())) return fail(vmm_gone());
    return static_cast<std::int64_t>(TRY(thread_->registers()).rax);
}

Result<std::int64_t> Vcpu::ioctl(std::uint64_t request, std::span<const std::byte> in,
                                 std::span<std::byte> out) {
    const auto place = board_->arguments(index_);
    if (!in.empty()) CHECK_OK(memory_->write(place, in));
    const auto result = TRY(call(__NR_ioctl, static_cast<std::uint64_t>(handle_.fd), request, place));
    if (result >= 0 && !out.empty()) CHECK_OK(memory_->read(place, out));
    return result;
}

Result<void> Vcpu::refresh() {
    CHECK_OK(set_immediate_exit(true));
    const auto result = TRY(call(__NR_ioctl, static_cast<std::uint64_t>(handle_.fd), KVM_RUN));
    CHECK_OK(set_immediate_exit(false));
    if (result == -EINTR || result == -EAGAIN) return {};
    return fail(Errc::backend, "vCPU " + std::to_string(handle_.id) + ": KVM_RUN answers " +
                                   (result < 0 ? std::strerror(static_cast<int>(-result)) : "with an exit"));
}

Result<void> Vcpu::write_sync_registers(const kvm_sync_regs& values, std::uint64_t fields) {
    CHECK_OK(memory_->put(handle_.run + offsetof(kvm_run, s), values));
    CHECK_OK(memory_->put(handle_.run + offsetof(kvm_run, kvm_dirty_regs), fields));
    return refresh();
}

Result<void> Vcpu::set_guest_debug(const kvm_guest_debug& debug) {
    if (debug_known_ && std::memcmp(&debug_, &debug, sizeof debug) == 0) return {};
    const auto result = TRY(ioctl(KVM_SET_GUEST_DEBUG, std::as_bytes(std::span{&debug, 1})));
    if (result < 0)
        return fail(Errc::unsupported,
                    std::string{"KVM_SET_GUEST_DEBUG: "} + std::strerror(static_cast<int>(-result)));
    debug_ = debug;
    debug_known_ = true;
    return {};
}

Result<void> Vcpu::make_exit_harmless() {
    if (held_) return {};
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
    if (held_) return give_to_vmm(static_cast<std::int64_t>(home_.rax));
    return enter_from_board();
}

Result<void> Vcpu::run_from_board() {
    stopping_ = false;
    stepping_ = true;
    return enter_from_board();
}

Result<void> Vcpu::enter_from_board() {
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
    if (thread_ && thread_->tid() != 0 && stopped()) CHECK_OK(go_home());
    thread_.reset();
    place_ = Place::free;
    held_ = stopping_ = stepping_ = false;
    return {};
}

// At the entry to the VMM's own KVM_RUN. Its way back leads to the springboard: rip of a thread at the entry
// is where the kernel returns to.
Result<void> Vcpu::send_into_guest(ThreadRegisters registers) {
    home_ = registers;
    home_.rax = static_cast<std::uint64_t>(-EINTR);
    home_.orig_rax = no_call;
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
    registers.orig_rax = no_call;  // at the entry: the call is left out, and this its result
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

// Before the VMM goes on to its next KVM_RUN with breakpoints armed. Should exogdb be killed meanwhile, that
// one does not enter the guest before its next interrupt, and a guardian is faster.
Result<void> Vcpu::set_halted(bool halted) {
    if (halted_ == halted) return {};
    const auto noted = board_->record(index_) + offsetof(ThreadRecord, halted);
    if (halted) {  // noted before it is
        halted_ = true;
        CHECK_OK(memory_->put<std::uint64_t>(noted, 1));
    }
    const kvm_mp_state state{
        static_cast<std::uint32_t>(halted ? KVM_MP_STATE_HALTED : KVM_MP_STATE_RUNNABLE)};
    const auto result = TRY(ioctl(KVM_SET_MP_STATE, std::as_bytes(std::span{&state, 1})));
    halted_ = halted && result == 0;  // EINVAL: its interrupt controller is not KVM's
    return memory_->put<std::uint64_t>(noted, halted_ ? 1 : 0);
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
        place_ = Place::free;
        thread_.reset();
        tid_ = 0;
        return RunExit{.kind = RunExit::Kind::gone};
    }
    if (on_board_) {
        if (stop.kind != StopKind::syscall) {
            CHECK_OK(thread_->resume(TracedThread::Resume::to_syscall));
            return RunExit{};
        }
        on_board_ = false;
        return returned(static_cast<std::int64_t>(TRY(thread_->registers()).rax));
    }
    if (stop.kind == StopKind::syscall) return take_syscall_stop();
    if (stop.kind == StopKind::interrupted && place_ == Place::vmm && stopping_) {
        // Taken out of a KVM_RUN whose beginning was not seen.
        const auto registers = TRY(thread_->registers());
        if (is_run(registers)) {
            home_ = registers;
            home_.orig_rax = no_call;
            place_ = Place::home;
            return returned(static_cast<std::int64_t>(registers.rax));
        }
    }
    CHECK_OK(
        thread_->resume(TracedThread::Resume::to_syscall, stop.kind == StopKind::signal ? stop.signal : 0));
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
        if (stepping_) {  // the VMM's next KVM_RUN must not make the step
            step_debug_ = debug_;
            auto without = debug_;
            without.control &= ~static_cast<std::uint32_t>(KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ);
            CHECK_OK(set_guest_debug(without));
        }
        CHECK_OK(set_halted(true));
    }
    CHECK_OK(give_to_vmm(result));
    return RunExit{};
}

Result<RunExit> Vcpu::poll_exit() {
    while (!stopped() && place_ != Place::free) {
        const auto stop = thread_->poll();
        if (!stop) return RunExit{};
        auto exit = TRY(take_stop(*stop));
        if (exit.kind != RunExit::Kind::none) return exit;
    }
    return RunExit{};
}

Result<RunExit> Vcpu::wait_exit(Clock::time_point deadline) {
    for (;;) {
        auto exit = TRY(poll_exit());
        if (exit.kind != RunExit::Kind::none || Clock::now() >= deadline) return exit;
        wait_for_child(deadline);
    }
}

}  // namespace exo::kvm
