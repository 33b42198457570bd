// Steps of RunControl: of a task, wherever it runs, and over whatever it does.
#include <algorithm>

#include "backends/arch/x86_64.h"
#include "stub/run_control.h"
#include "stub/skip.h"

namespace exo::stub {
namespace {

using Kind = rsp::ResumeAction::Kind;
using Reason = rsp::StopReply::Reason;

// The same for as long as the same task runs in the same mode: kernel stacks are 16 KiB and aligned to that
// (THREAD_SIZE, arch/x86/include/asm/page_64_types.h), user mode has its page tables.
std::uint64_t task_fingerprint(const RegisterSet& registers) {
    constexpr std::uint64_t stack_mask = ~std::uint64_t{0x3fff};
    return x86::in_user_mode(registers) ? registers.get(x86::cr3).value_or(0) | 1U
                                        : registers.get(x86::rsp).value_or(0) & stack_mask;
}

}  // namespace

void RunControl::begin_fingerprint(const RegisterSet& registers) {
    step_->stack = task_fingerprint(registers);
}

Result<void> RunControl::begin_step(const Thread& thread, std::int64_t process,
                                    const rsp::ResumeAction& action) {
    step_ = Step{.thread = thread, .vcpu = thread.vcpu, .process = process};
    if (action.kind == Kind::range_step) {
        step_->range_start = action.range_start;
        step_->range_end = action.range_end;
    }
    const RegisterSet* live = thread.vcpu ? TRY(machine_.vcpu_registers(*thread.vcpu)) : nullptr;
    if (process != kernel_pid && (live == nullptr || !x86::in_user_mode(*live)))
        return wait_for_user_mode(thread);
    if (live == nullptr) return wait_for_task(thread.tid);
    begin_fingerprint(*live);
    return {};
}

Result<void> RunControl::begin_instruction() {
    if (!step_ || !step_->vcpu) return {};
    step_->before = *TRY(machine_.vcpu_registers(*step_->vcpu));
    return {};
}

// A machine may stop for what another vCPU had to tell before, and say that a step is over that was not made:
// QEMU's debug requests are carried out later than they are made (qemu_system_debug_request()). An
// instruction that changes nothing, a jump to itself, is tried some times for nothing.
bool RunControl::stood_still(const RegisterSet& before, const RegisterSet& after, int& times) {
    constexpr int most_times = 3;
    const auto flags = [](const RegisterSet& of) {
        return of.get(x86::eflags).value_or(0) & ~x86::eflags_rf;
    };
    bool same = flags(before) == flags(after);
    for (RegisterNumber number = x86::rax; same && number <= x86::rip; ++number)
        same = before.get(number) == after.get(number);
    return same && times++ < most_times;
}

// Of several vCPUs that have something to tell at once a machine tells one, and forgets that another's step
// was over.
Result<bool> RunControl::step_is_over() {
    if (!step_ || !step_->vcpu || !step_->before) return false;
    const RegisterSet& registers = *TRY(machine_.vcpu_registers(*step_->vcpu));
    return registers.get(x86::rip) != step_->before->get(x86::rip);
}

// A machine that steps past a pause (Execution::steps_past_pauses) does not run it.
Result<bool> RunControl::skip_own_pause() {
    if (!step_ || !step_->vcpu || !machine_.target().execution()->steps_past_pauses()) return false;
    return skip_pause(machine_, *step_->vcpu, TRY(linear_pc(*step_->vcpu)));
}

Result<std::optional<RunControl::Stop>> RunControl::handle_step(const StopEvent& event) {
    if (!step_ || event.vcpu != step_->vcpu) return report(event, {});
    const RegisterSet& registers = *TRY(machine_.vcpu_registers(event.vcpu));
    if (step_->before && stood_still(*step_->before, registers, step_->still)) {
        CHECK_OK(run());
        return std::nullopt;
    }
    step_->still = 0;
    if (step_->process != kernel_pid && !x86::in_user_mode(registers)) return entered_kernel(event.vcpu);
    step_->before.reset();
    const std::uint64_t pc = registers.get(x86::rip).value_or(0);
    const std::uint64_t fingerprint = task_fingerprint(registers);
    if (fingerprint != step_->stack) {
        // Looks at the OS: `registers` is of before.
        const Thread* now = on_vcpu(event.vcpu);
        if (now == nullptr || now->tid != step_->thread.tid) {
            if (machine_.os_generation() != os_generation_) return report(event, {});
            return switched_away(event.vcpu);
        }
        step_->thread = *now;
        step_->stack = fingerprint;
    }
    return step_reached(event.vcpu, VirtualAddress{pc});
}

Result<std::optional<RunControl::Stop>> RunControl::step_reached(VcpuId vcpu, VirtualAddress at) {
    const std::uint64_t pc = raw(at);
    const bool in_range = pc >= step_->range_start && pc < step_->range_end;
    std::optional<BreakpointKind> breakpoint;
    for (const BreakpointKey& key : breakpoints.client_breakpoints_at(at)) {
        if (!breakpoint && key.process == step_->process) breakpoint = key.kind;
    }
    if (!in_range || breakpoint) {
        known_ = step_->thread;
        known_->vcpu = vcpu;
        known_epoch_ = epoch_;
        return Stop{.thread = known_->tid,
                    .reason = in_range ? reason_of(*breakpoint) : Reason::none,
                    .process = step_->process};
    }
    CHECK_OK(run());
    return std::nullopt;
}

// The step ends when the task runs again; until then all do, or it might never.
Result<std::optional<RunControl::Stop>> RunControl::switched_away(VcpuId vcpu) {
    const Thread* thread = threads().find(step_->thread.tid);
    if (thread == nullptr || (thread->task && thread->task->ended)) return stepped_to_its_end(vcpu);
    CHECK_OK(wait_for_task(step_->thread.tid));
    step_->vcpu.reset();
    run_all_but_held();
    CHECK_OK(run());
    return std::nullopt;
}

// Nobody is left who could stop for the step: a thread stops that was resumed with it, or else what is there
// now.
RunControl::Stop RunControl::stepped_to_its_end(VcpuId vcpu) {
    const Thread stepped = step_->thread;
    const Thread* now = on_vcpu(vcpu);
    const bool others =
        std::ranges::any_of(threads().threads(), [&](const Thread& thread) { return resumed(thread); });
    const rsp::ThreadId told = now != nullptr && !others && views.kernel ? rsp::ThreadId{kernel_pid, now->tid}
                                                                         : resumed_thread(vcpu);
    Stop stop{.thread = told.tid, .process = told.pid};
    stop.note = "thread " + std::to_string(stepped.tid) + " (" + stepped.name + ") has ended in its step";
    return stop;
}

// The task's step ends when it runs again: it is met where it was switched away.
Result<void> RunControl::wait_for_task(ThreadKey tid) {
    const Thread* thread = threads().find(tid);
    if (thread == nullptr || !thread->task || machine_.os() == nullptr) {
        return fail(Errc::no_such_thread, "cannot step thread " + std::to_string(tid) + ": it is gone");
    }
    const RegisterSet saved = TRY(machine_.os()->saved_registers(*thread->task));
    const auto pc = saved.get(x86::rip);
    const auto sp = saved.get(x86::rsp);
    if (!pc || !sp) {
        return fail(Errc::bad_data,
                    "cannot step thread " + std::to_string(tid) + ": its saved rip is unknown");
    }
    CHECK_OK(breakpoints.insert_internal(VirtualAddress{*pc}));
    wakeup_ = Wakeup{.thread = tid, .address = VirtualAddress{*pc}, .stack_pointer = *sp};
    return {};
}

}  // namespace exo::stub
