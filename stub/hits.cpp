// The part of RunControl that tells what becomes of a hit of an execution breakpoint.
#include <utility>

#include "backends/arch/x86_64.h"
#include "stub/run_control.h"
#include "stub/skip.h"

namespace exo::stub {

// Told by its conditions, while the other vCPUs run: with nothing asked of them. Nothing is judged here that
// could not go on: a ^C may come before the guest stands, and the hit is met again then. What was judged and
// has to stop is not judged again. Whose hit one is, of several processes, is told where the guest stands.
Result<bool> RunControl::goes_on(const StopEvent& event) {
    if (step_ || wakeup_ || boot_.jump || around_ || interrupted_ || !views.processes.empty()) return false;
    machine_.forget();
    new_epoch();
    const VirtualAddress pc = TRY(linear_pc(event.vcpu));
    if (!conditions.decide_at(pc) || tracepoints.collect_at(pc)) return false;
    std::optional<Thread> thread;
    const auto current = [&]() -> const Thread* {
        if (!thread) thread = ThreadMap::current(machine_, event.vcpu, vcpus_only_);
        return thread ? &*thread : nullptr;
    };
    const bool matters_who = conditions.filters().contains(pc) || !everybody_runs();
    if (matters_who && (current() == nullptr || !resumed(*thread))) return false;
    const std::size_t length = TRY(nop_to_skip(machine_, event.vcpu, pc));
    if (length == 0) return false;
    judged_ = {.vcpu = event.vcpu, .stops = conditions.judge(event.vcpu, pc, breakpoints, current)};
    if (judged_->stops) return false;
    judged_.reset();
    CHECK_OK(machine_.move_to(event.vcpu, pc + length));
    machine_.forget();
    return true;
}

Result<std::optional<RunControl::Stop>> RunControl::handle_breakpoint(const StopEvent& event) {
    const auto judged = std::exchange(judged_, std::nullopt);
    const VirtualAddress pc = TRY(linear_pc(event.vcpu));
    const RegisterSet& registers = *TRY(machine_.vcpu_registers(event.vcpu));
    if (auto told = TRY(process_event(event.vcpu, pc))) return told;
    // Every task that was switched away goes on at the same instruction; its stack tells which it is.
    if (wakeup_ && wakeup_->address == pc && wakeup_->stack_pointer == registers.get(x86::rsp)) {
        const Thread* now = on_vcpu(event.vcpu);
        const bool there = now != nullptr && now->tid == wakeup_->thread;
        if (wakeup_->process == kernel_pid) {
            if (!there && threads().find(wakeup_->thread) == nullptr) return stepped_to_its_end(event.vcpu);
            return Stop{.thread = wakeup_->thread};
        }
        if (there && x86::in_user_mode(registers)) return back_in_user_mode(Thread{*now});
    }
    const auto current = [&] { return on_vcpu(event.vcpu); };
    const bool traced = TRY(tracepoints.hit(event.vcpu, pc, current));
    const bool clients = breakpoints.client_breakpoint_at(pc).has_value();
    if (boot_.jump == pc && !clients) return enter_kernel(event.vcpu);
    if (clients) {
        const bool known = judged && judged->vcpu == event.vcpu;
        const auto here = [&](const BreakpointKey& key) {
            return views.processes.empty() || counts(key, current());
        };
        const auto key = known ? judged->stops : conditions.judge(event.vcpu, pc, breakpoints, current, here);
        if (key) {
            return report(event,
                          registers.get(x86::rip) != raw(pc) ? hidden_breakpoint(pc)
                                                             : Stop{.reason = reason_of(key->kind)},
                          key->process);
        }
    } else if (!traced && !breakpoints.any_at(pc)) {  // else run control's own, hit by another task
        return report(event, {});
    }
    CHECK_OK(go_past(event.vcpu, pc));
    CHECK_OK(run());
    return std::nullopt;
}

}  // namespace exo::stub
