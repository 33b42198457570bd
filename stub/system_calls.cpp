// The part of RunControl for system calls of attached processes (QCatchSyscalls), as gdbserver tells them by
// ptrace's syscall stops (gdbserver/linux-low.cc, gdb_catch_this_syscall): the registers are those of user
// mode behind the `syscall` instruction, with rax -ENOSYS at the entry.
//
// All system calls of 64-bit code come by at do_syscall_64() (arch/x86/entry/). Kernels differ in the order
// of its arguments, so the number is taken out of pt_regs. Where it returns to is on the stack there. With a
// signal pending it does not return before pt_regs are changed for the handler or for another try; ptrace's
// stop is before that, and so is arch_do_signal_or_restart() (kernel/entry/common.c). Who comes by there from
// an interrupt is in no system call. Those of 32-bit code (int 0x80, SYSENTER) have entries and numbers of
// their own, and are not told.
//
// A thread that is stepped is not stopped by its own: PTRACE_SINGLESTEP has no syscall stops either.
#include <spdlog/spdlog.h>

#include <cstdint>
#include <optional>
#include <span>

#include "backends/arch/x86_64.h"
#include "stub/run_control.h"

namespace exo::stub {
namespace {

constexpr std::uint64_t orig_rax_in_frame = 0x78;  // struct pt_regs (arch/x86/include/asm/ptrace.h)

// do_syscall_64() has pt_regs and the number as its arguments, in this order or in that.
std::optional<RegisterNumber> number_argument(const RegisterSet& registers, std::uint64_t frame) {
    if (registers.get(x86::rdi) == frame) return x86::rsi;
    if (registers.get(x86::rsi) == frame) return x86::rdi;
    return std::nullopt;
}

}  // namespace

// A packet is of one process and replaces what was said of it before; of which, it does not say, and gdb
// selects none for it (remote_target::set_syscall_catchpoint): with gdbserver the process that happens to be
// selected has the last of them. So those of several processes are taken together. gdb goes on where it has
// no catchpoint for what it is told (infrun.c, handle_syscall_event).
void RunControl::catch_calls(const rsp::CatchSystemCalls& request) {
    if (!request.on || views.processes.size() < 2) caught_calls_ = {};
    if (!request.on) return;
    caught_calls_.all |= request.numbers.empty();
    caught_calls_.numbers.insert(request.numbers.begin(), request.numbers.end());
}

Result<std::optional<RunControl::Stop>> RunControl::call_begins(const Thread& thread) {
    const auto watched = watch_return(*thread.vcpu, Landmark::call_returns);
    constexpr std::string_view lost = "returns of system calls are not told";
    if (!watched && lost_.insert(lost).second) spdlog::warn("{}: {}", lost, watched.error().message);
    in_calls_.insert(thread.tid);
    return told_call(thread, rsp::StopReply::Reason::syscall_entry);
}

// Told only if the entry was seen. As with ptrace, what a vfork has to tell comes first.
Result<std::optional<RunControl::Stop>> RunControl::call_returns(const Thread& thread) {
    if (!in_calls_.contains(thread.tid)) return std::nullopt;
    if (auto over = vfork_is_over(thread)) return over;
    in_calls_.erase(thread.tid);
    return told_call(thread, rsp::StopReply::Reason::syscall_return);
}

// Where the end of a vfork was told, the return is not yet.
bool RunControl::has_more_to_tell(VcpuId vcpu, VirtualAddress pc) {
    const auto landmark = landmarks_.find(pc);
    if (landmark == landmarks_.end() || landmark->second != Landmark::call_returns) return false;
    const Thread* now = on_vcpu(vcpu);
    return now != nullptr && in_calls_.contains(now->tid);
}

// The kernel takes a number that a debugger has changed behind ptrace's stop, which is after this one
// (kernel/entry/common.c, syscall_trace_enter()).
Result<void> RunControl::take_changed_number(VcpuId vcpu) {
    const Thread* now = on_vcpu(vcpu);
    if (now == nullptr || !now->task) return {};
    const auto user = machine_.user_registers(*now->task, vcpu, false);
    const auto number = user ? user->values.get(x86::orig_rax) : std::nullopt;
    if (!number || user->places.at(x86::orig_rax).kind != os::RegisterPlace::Kind::memory) return {};
    RegisterSet registers = *TRY(machine_.vcpu_registers(vcpu));
    const auto frame = raw(user->places.at(x86::orig_rax).address) - orig_rax_in_frame;
    const auto argument = number_argument(registers, frame);
    const auto call = static_cast<std::int32_t>(*number);
    if (!argument || static_cast<std::int32_t>(registers.get(*argument).value_or(0)) == call) return {};
    registers.set(*argument, static_cast<std::uint64_t>(std::int64_t{call}));
    return machine_.write_vcpu_registers(vcpu, registers, std::span{&*argument, 1});
}

Result<std::optional<RunControl::Stop>> RunControl::told_call(const Thread& thread,
                                                              rsp::StopReply::Reason reason) {
    const std::int64_t process = *views.process_of(thread);
    const bool stepped = step_ && step_->thread.tid == thread.tid;
    if (!caught_calls_.any() || stepped || !resumed(thread, process)) return std::nullopt;
    const auto user = machine_.user_registers(*thread.task, thread.vcpu, false);
    const auto number = user ? user->values.get(x86::orig_rax) : std::nullopt;
    if (!number) {
        spdlog::warn("a system call of thread {} is not told: {}", thread.tid,
                     user ? "its number is not known" : user.error().message);
        return std::nullopt;
    }
    const auto call = static_cast<std::uint32_t>(*number);
    if (!caught_calls_.has(call)) return std::nullopt;
    return Stop{.thread = thread.tid, .reason = reason, .process = process, .system_call = call};
}

}  // namespace exo::stub
