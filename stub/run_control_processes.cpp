// The part of RunControl for processes of the guest: whose stop a stop is, steps of user mode.
//
// The machine runs as a whole: what the client does not know of runs whenever something is resumed, and what
// it resumes of one process is not held up by another's. A process' breakpoint is at an address of every
// process: the others pass it unseen.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "backends/arch/x86_64.h"
#include "stub/run_control.h"

namespace exo::stub {
namespace {

// What sigreturn(2) and rt_sigreturn(2) go back to is in the signal's frame, above the stack pointer: sp and
// ip in its struct sigcontext (arch/x86/include/uapi/asm/sigcontext.h, arch/x86/include/asm/sigframe.h).
struct SignalReturn {
    bool of_32_bit;
    std::uint64_t call, stack_pointer, pc;
    std::size_t word;
};
constexpr auto signal_returns = std::to_array<SignalReturn>({
    {false, 15, 160, 168, 8},
    {true, 119, 28, 56, 4},
    {true, 173, 188, 216, 4},
});

struct Way {
    std::uint64_t pc = 0, stack_pointer = 0;
    bool interrupted = false;  // before the instruction at pc, by no system call
};

// `int 0x80`, which pushes a frame as an interrupt does: that it is a system call, and which one, stands in
// no pt_regs before the kernel has come to say so (int80_emulation(), arch/x86/entry/common.c).
bool is_int80(AddressSpace& space, std::uint64_t pc) {
    const auto bytes = space.read_value<std::array<std::uint8_t, 2>>(VirtualAddress{pc});
    return bytes && *bytes == std::array<std::uint8_t, 2>{0xcd, 0x80};
}

// `before`: the registers before the instruction by which it came into the kernel, where those are known.
Result<Way> way_back(Machine& machine, const Thread& thread, const std::optional<RegisterSet>& before) {
    const auto user = TRY(machine.user_registers(*thread.task, thread.vcpu, false));
    const auto pc = user.values.get(x86::rip), sp = user.values.get(x86::rsp);
    if (!pc || !sp) {
        return fail(Errc::bad_data,
                    "where thread " + std::to_string(thread.tid) + " goes back to user mode is not known");
    }
    AddressSpace* space = TRY(machine.process_space(*thread.task));
    const auto begun = before ? before->get(x86::rip) : std::nullopt;
    const auto saved = user.values.get(x86::orig_rax);
    const bool interrupted = saved == ~std::uint64_t{0};
    const bool made = begun && *begun != *pc;
    const bool int80 = interrupted && made && *pc == *begun + 2 && is_int80(*space, *begun);
    const auto call = saved && !int80 ? saved : user.values.get(x86::rax);
    const bool numbers_of_32_bit = int80 || machine.is_32_bit(*thread.task);
    const auto* const row = std::ranges::find_if(signal_returns, [&](const SignalReturn& known) {
        return call == known.call && known.of_32_bit == numbers_of_32_bit;
    });
    if (row != signal_returns.end()) {
        Way back;
        const auto read = [&](std::uint64_t offset, std::uint64_t& word) {
            const auto bytes = std::as_writable_bytes(std::span{&word, 1}).first(row->word);
            return space->read(VirtualAddress{*sp + offset}, bytes).has_value();
        };
        if (read(row->pc, back.pc) && read(row->stack_pointer, back.stack_pointer)) return back;
    }
    return Way{*pc, *sp, interrupted && !made};
}

}  // namespace

std::optional<std::int64_t> RunControl::told_process(const Thread& thread) const {
    const auto own = views.process_of(thread);
    for (const auto process : {current_process_, own.value_or(kernel_pid), kernel_pid}) {
        const bool has = process == kernel_pid ? views.kernel : own == process;
        if (has && resumed(thread, process)) return process;
    }
    return std::nullopt;
}

bool RunControl::counts(const BreakpointKey& key, const Thread* thread) const {
    if (key.process == kernel_pid) return thread == nullptr || resumed(*thread, kernel_pid);
    return thread != nullptr && views.process_of(*thread) == key.process && resumed(*thread, key.process);
}

// Nobody is held while the child of a vfork is waited for: gdb resumes the one thread that waits, and the
// child may be about to run where another thread of its is.
VcpuAction RunControl::action_of_unnamed(const Thread& thread) const {
    if (!vforks_.empty()) return VcpuAction::run;
    const bool kept = current_process_ == kernel_pid || views.process_of(thread) == current_process_;
    return kept ? VcpuAction::hold : VcpuAction::run;
}

// The step ends, or begins, where the thread is back.
Result<void> RunControl::wait_for_user_mode(const Thread& thread) {
    const Way way = TRY(way_back(machine_, thread, std::exchange(step_->before, {})));
    CHECK_OK(breakpoints.insert_internal(VirtualAddress{way.pc}, step_->process));
    wakeup_ = Wakeup{.thread = thread.tid,
                     .address = VirtualAddress{way.pc},
                     .stack_pointer = way.stack_pointer,
                     .process = step_->process,
                     .again = way.interrupted};
    step_->vcpu.reset();
    return {};
}

// In the middle of a step: by a system call, a fault, or because something interrupted it.
Result<std::optional<RunControl::Stop>> RunControl::entered_kernel(VcpuId vcpu) {
    const Thread* now = on_vcpu(vcpu);
    if (now == nullptr || now->tid != step_->thread.tid) now = threads().find(step_->thread.tid);
    if (now == nullptr || !now->task || now->task->ended) return stepped_to_its_end(vcpu);
    CHECK_OK(wait_for_user_mode(Thread{*now}));
    run_all_but_held();
    CHECK_OK(run());
    return std::nullopt;
}

Result<std::optional<RunControl::Stop>> RunControl::back_in_user_mode(const Thread& thread) {
    const VcpuId vcpu = *thread.vcpu;
    const auto wakeup = *std::exchange(wakeup_, std::nullopt);
    breakpoints.remove_internal(wakeup.address, wakeup.process);
    step_->thread = thread;
    step_->vcpu = vcpu;
    begin_fingerprint(*TRY(machine_.vcpu_registers(vcpu)));
    run_all_but_held();
    actions_.at(vcpu) = VcpuAction::step;
    CHECK_OK(breakpoints.settle());
    if (!wakeup.again) return step_reached(vcpu, wakeup.address);
    if (breakpoints.any_at(wakeup.address)) {
        CHECK_OK(begin_instruction());
        CHECK_OK(go_past(vcpu, wakeup.address));
    } else {
        step_->before.reset();
    }
    CHECK_OK(run());
    return std::nullopt;
}

}  // namespace exo::stub
