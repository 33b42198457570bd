// The part of RunControl that gets a vCPU past a breakpoint with all others held.
#include <utility>

#include "backends/arch/x86_64.h"
#include "stub/run_control.h"
#include "stub/skip.h"

namespace exo::stub {
namespace {

// One instruction of one vCPU with all others held; a machine that does not come back from it is broken.
constexpr std::chrono::seconds step_over_limit{5};

}  // namespace

// Each way to run one vCPU and stop it again takes longer than all else that is done at a hit.
Result<void> RunControl::go_past(VcpuId vcpu, VirtualAddress pc) {
    if (TRY(skip_nop(machine_, vcpu, pc))) return {};
    if (breakpoints.steps_in_place(pc) && TRY(step_in_place(vcpu, pc))) return {};
    return step_over(vcpu, pc);
}

// False: it stands where it stood. That may be the instruction's doing (`rep movs`), so nothing is learnt of
// it.
Result<bool> RunControl::step_in_place(VcpuId vcpu, VirtualAddress pc) {
    const auto event = TRY(step_alone_once(vcpu));
    if (event.cause != StopEvent::Cause::step) {
        queued_ = event;
        return true;
    }
    if (!steps_in_place_) steps_in_place_ = (*TRY(machine_.vcpu_registers(vcpu))).get(x86::rip) != raw(pc);
    return steps_in_place_;
}

// Whatever comes of it, the breakpoints at `pc` are back afterwards.
Result<void> RunControl::step_over(VcpuId vcpu, VirtualAddress pc) {
    auto lifted = breakpoints.lift(pc);
    const auto event = lifted ? step_alone(vcpu) : Result<StopEvent>{fail(std::move(lifted).error())};
    auto back = breakpoints.put_back(pc);
    if (!event) return fail(event.error());
    if (event->cause != StopEvent::Cause::step) queued_ = *event;
    return back;
}

Result<StopEvent> RunControl::step_alone(VcpuId vcpu) {
    for (int still = 0;;) {
        const RegisterSet before = *TRY(machine_.vcpu_registers(vcpu));
        const auto event = TRY(step_alone_once(vcpu));
        if (event.cause != StopEvent::Cause::step || event.vcpu != vcpu) return event;
        if (!stood_still(before, *TRY(machine_.vcpu_registers(vcpu)), still)) return event;
    }
}

Result<StopEvent> RunControl::step_alone_once(VcpuId vcpu) {
    auto* execution = machine_.target().execution();
    std::vector<VcpuAction> alone(actions_.size(), VcpuAction::hold);
    alone.at(vcpu) = VcpuAction::step;
    machine_.forget();
    new_epoch();
    CHECK_OK(execution->resume(alone));
    auto event = TRY(execution->wait_for_stop(step_over_limit));
    if (!event) {  // a `hlt` whose interrupts are kept back, say: to the client that is a stop like ^C
        execution->interrupt();
        event = TRY(execution->wait_for_stop(step_over_limit));
    }
    if (event) return *event;
    return fail(Errc::timed_out, "vCPU " + std::to_string(vcpu) + " does not come back from one instruction");
}

}  // namespace exo::stub
