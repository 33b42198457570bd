// The guest runs, and stops: of EventExecution.
#include <algorithm>

#include "backends/xen/event_execution.h"

namespace exo::xen {
namespace {

using namespace std::chrono_literals;

// How long the domain's end is not seen while no event comes: Xen tells of it only whoever has the one
// VIRQ_DOM_EXC, which is xenstored.
constexpr auto look_for_end = 50ms;

constexpr std::uint64_t resume_flag = 1U << 16U;  // EFLAGS.RF: no instruction breakpoint for one instruction

PhysicalAddress place_of_int3(const VmEvent& event) {
    return PhysicalAddress{event.u.software_breakpoint.gfn * page_bytes +
                           event.data.regs.x86.rip % page_bytes};
}

}  // namespace

Result<void> EventExecution::resume(std::span<const VcpuAction> actions) {
    if (!attached_ || running_) return fail(Errc::busy, "the guest is not stopped");
    std::vector<VcpuAction> wanted(actions.begin(), actions.end());
    wanted.resize(vcpus_.size(), VcpuAction::hold);
    const bool together = std::ranges::all_of(wanted, [](auto action) { return action == VcpuAction::run; });
    if (!together && !abilities_.monitor_trap && !abilities_.debug_exceptions)
        return fail(Errc::unsupported, domain_.name() +
                                           " can only run as a whole: this Xen makes no events of steps "
                                           "on this processor");
    actions_ = std::move(wanted);
    ++generation_;
    take_interrupt();
    running_ = true;
    domain_.runs();
    auto started = start();
    if (started) return started;
    // It has ended while it stood: told as that by wait_for_stop().
    if (started.error().code == Errc::target_gone) return {};
    static_cast<void>(stop_all());
    running_ = false;
    static_cast<void>(domain_.stands());
    return started;
}

Result<void> EventExecution::start() {
    const auto is = [](VcpuAction wanted) { return [=](VcpuAction action) { return action == wanted; }; };
    const bool together = std::ranges::all_of(actions_, is(VcpuAction::run));
    const bool traps = !abilities_.monitor_trap && std::ranges::any_of(actions_, is(VcpuAction::step));
    CHECK_OK(pages_.refresh_all());  // the client may have written to them
    CHECK_OK(deliver(EventKind::int3, !software_.empty()));
    CHECK_OK(deliver(EventKind::debug_exception,
                     !debug_.empty() || traps || owes_traps() || (!together && !abilities_.monitor_trap)));
    CHECK_OK(apply_debug_registers());
    const auto hits = TRY(told_hits());
    const bool unseen =
        std::ranges::any_of(vcpus_, [](const Vcpu& vcpu) { return vcpu.event && !vcpu.seen; });
    if (vcpus_.size() > 1 && (!together || unseen || !hits.empty())) CHECK_OK(park_all());
    CHECK_OK(look_at_unseen());
    if (!events_.empty()) return {};
    CHECK_OK(step_off(hits));
    if (!events_.empty()) return {};
    for (VcpuId id = 0; id < vcpus_.size(); ++id) CHECK_OK(start_one(id));
    return unpause();
}

// Those that stand where they stopped, at a breakpoint that was told. One that has come there and has not run
// into it yet is to do so.
Result<std::vector<VcpuId>> EventExecution::told_hits() {
    std::vector<VcpuId> hits;
    for (VcpuId id = 0; id < vcpus_.size(); ++id) {
        const auto& vcpu = vcpus_[id];
        if (actions_[id] == VcpuAction::hold || !vcpu.event || !vcpu.seen) continue;
        const bool software = vcpu.event->reason == VM_EVENT_REASON_SOFTWARE_BREAKPOINT;
        const bool hardware = vcpu.debug && vcpu.debug->cause == StopEvent::Cause::hardware_breakpoint;
        if (!software && !hardware) continue;
        const auto rip = TRY(domain_.cpu(id)).rip;
        if (rip != vcpu.event->data.regs.x86.rip) continue;  // the client has moved it
        if (hardware && debug_.breaks_at(rip))
            CHECK_OK(domain_.change_cpu(id, [](HvmCpu& cpu) { cpu.rflags |= resume_flag; }));
        if (software && software_at(place_of_int3(*vcpu.event)) != nullptr) hits.push_back(id);
    }
    return hits;
}

// What came to others at the same time as the last stop, of those that are to go on.
Result<void> EventExecution::look_at_unseen() {
    for (VcpuId id = 0; id < vcpus_.size(); ++id) {
        if (actions_[id] == VcpuAction::hold || !vcpus_[id].event || vcpus_[id].seen) continue;
        // The end of a step that was cut short by another's stop is seen where it stands.
        if (vcpus_[id].event->reason == VM_EVENT_REASON_SINGLESTEP && !vcpus_[id].parked) {
            vcpus_[id].seen = true;
            continue;
        }
        if (const auto event = TRY(look_at(id))) events_.push_back(*event);
    }
    return {};
}

Result<void> EventExecution::step_off(const std::vector<VcpuId>& hits) {
    for (const auto id : hits) {
        if (!vcpus_[id].event) continue;
        const auto* breakpoint = software_at(place_of_int3(*vcpus_[id].event));
        if (breakpoint == nullptr) continue;
        const auto copy = *breakpoint;
        CHECK_OK(get_past(id, copy));
        if (!vcpus_[id].event || vcpus_[id].seen) continue;
        if (const auto event = TRY(look_at(id))) events_.push_back(*event);
    }
    return {};
}

Result<void> EventExecution::start_one(VcpuId id) {
    auto& vcpu = vcpus_.at(id);
    if (actions_.at(id) == VcpuAction::hold || (vcpu.event && !vcpu.seen)) return {};
    CHECK_OK(set_step(id, actions_.at(id) == VcpuAction::step));
    return answer(id);
}

Result<std::optional<StopEvent>> EventExecution::stopped(StopEvent event) {
    CHECK_OK(stop_all());
    if (!abilities_.monitor_trap)  // a client would see the trap flag
        for (VcpuId id = 0; id < vcpus_.size(); ++id) CHECK_OK(set_step(id, false));
    running_ = false;
    ++generation_;
    CHECK_OK(domain_.stands());
    return event;
}

Result<std::optional<StopEvent>> EventExecution::wait_for_stop(std::chrono::milliseconds limit) {
    auto event = wait(Clock::now() + limit);
    const bool lost = !event && event.error().code == Errc::target_gone;
    if (!lost) return event;
    running_ = false;
    return StopEvent{.cause = StopEvent::Cause::exited};
}

Result<std::optional<StopEvent>> EventExecution::wait(Clock::time_point deadline) {
    if (!running_) return StopEvent{};
    if (!events_.empty()) {
        const auto event = events_.front();
        events_.pop_front();
        return stopped(event);
    }
    for (;;) {
        CHECK_OK(drain());
        for (VcpuId id = 0; id < vcpus_.size(); ++id) {
            if (!vcpus_[id].event || vcpus_[id].seen || actions_[id] == VcpuAction::hold) continue;
            if (auto event = TRY(look_at(id))) return stopped(*event);
        }
        if (take_interrupt()) return stopped({.cause = StopEvent::Cause::interrupt});
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
        if (left <= 0ms) return std::optional<StopEvent>{};
        if (has_unseen()) continue;
        const auto slice = std::min<std::chrono::milliseconds>(left, look_for_end);
        if (TRY(domain_.wait(wake_.get(), slice))) continue;
        switch (TRY(domain_.life())) {
            case DomainLife::runs: break;
            case DomainLife::held: return stopped({.cause = StopEvent::Cause::interrupt});
            case DomainLife::gone: return fail(Errc::target_gone, domain_.name() + " is gone");
        }
    }
}

// Of a vCPU that is to run or to step. Nothing for what is the guest's own, or nobody's: it goes on.
Result<std::optional<StopEvent>> EventExecution::look_at(VcpuId id) {
    switch (vcpus_.at(id).event->reason) {
        case VM_EVENT_REASON_SOFTWARE_BREAKPOINT: return at_int3(id);
        case VM_EVENT_REASON_DEBUG_EXCEPTION: return at_debug_exception(id);
        case VM_EVENT_REASON_MEM_ACCESS: return at_access(id);
        default: break;
    }
    vcpus_.at(id).seen = true;
    return after_step(id);
}

bool EventExecution::has_unseen() const {
    for (VcpuId id = 0; id < vcpus_.size(); ++id)
        if (vcpus_[id].event && !vcpus_[id].seen && actions_[id] != VcpuAction::hold) return true;
    return false;
}

// What has come instead of a step's end is looked at next.
Result<std::optional<StopEvent>> EventExecution::after_step(VcpuId id) {
    auto& vcpu = vcpus_.at(id);
    if (!vcpu.event) return std::optional<StopEvent>{};
    const bool ended = vcpu.event->reason == VM_EVENT_REASON_SINGLESTEP;
    if (!ended && !vcpu.seen) return std::optional<StopEvent>{};
    vcpu.seen = true;
    if (ended && actions_.at(id) == VcpuAction::step)
        return StopEvent{.cause = StopEvent::Cause::step,
                         .vcpu = id,
                         .address = VirtualAddress{vcpu.event->data.regs.x86.rip}};
    CHECK_OK(start_one(id));
    return std::optional<StopEvent>{};
}

// With rip at the int3. Not told: nobody's, or a judge has let it go on.
Result<std::optional<StopEvent>> EventExecution::at_int3(VcpuId id) {
    auto& vcpu = vcpus_.at(id);
    const auto rip = vcpu.event->data.regs.x86.rip;
    const auto place = place_of_int3(*vcpu.event);
    const auto* breakpoint = software_at(place);
    if (breakpoint == nullptr) {
        std::byte now{};
        const bool guests_own = domain_.memory().read(place, {&now, 1}) && now == int3;
        if (guests_own) CHECK_OK(reinject(id, breakpoint_vector));
        vcpu.seen = true;
        CHECK_OK(start_one(id));  // else it has been taken out since: what is there now is executed
        return std::optional<StopEvent>{};
    }
    const auto found = software_.find(rip);
    // By another address, it is another process' run of the same page of a file.
    if (found != software_.end() && found->second.place == place) {
        const StopEvent event{
            .cause = StopEvent::Cause::breakpoint, .vcpu = id, .address = VirtualAddress{rip}};
        vcpu.seen = true;
        if (!TRY(goes_on(event))) return event;
        if (TRY(domain_.cpu(id)).rip != rip) {
            CHECK_OK(start_one(id));
            return std::optional<StopEvent>{};
        }
    }
    const auto copy = *breakpoint;
    CHECK_OK(get_past(id, copy));
    return after_step(id);
}

Result<std::optional<StopEvent>> EventExecution::at_debug_exception(VcpuId id) {
    auto& vcpu = vcpus_.at(id);
    vcpu.seen = true;
    if (!vcpu.debug) {
        CHECK_OK(reinject(id, debug_vector));
        CHECK_OK(start_one(id));
        return std::optional<StopEvent>{};
    }
    const auto event = *vcpu.debug;
    if (event.cause == StopEvent::Cause::step && actions_.at(id) != VcpuAction::step) {
        CHECK_OK(start_one(id));  // of one that was held by it
        return std::optional<StopEvent>{};
    }
    if (!TRY(goes_on(event))) return event;
    if (event.cause == StopEvent::Cause::hardware_breakpoint)
        CHECK_OK(domain_.change_cpu(id, [&](HvmCpu& cpu) {
            if (debug_.breaks_at(cpu.rip)) cpu.rflags |= resume_flag;
        }));
    CHECK_OK(start_one(id));
    return std::optional<StopEvent>{};
}

// Before the access is done.
Result<std::optional<StopEvent>> EventExecution::at_access(VcpuId id) {
    const auto flags = vcpus_.at(id).event->u.mem_access.flags;
    const auto frame = vcpus_.at(id).event->u.mem_access.gfn;
    if ((flags & MEM_ACCESS_RW) == 0 || access(frame) == PageAccess::all) {
        // It was held by it, or the watchpoint has been removed since.
        vcpus_.at(id).seen = true;
        CHECK_OK(start_one(id));
        return std::optional<StopEvent>{};
    }
    std::vector<Suspect> suspects;
    CHECK_OK(step_with_access(id, suspects));
    CHECK_OK(pages_.refresh(frame));
    for (const auto& [candidate, before] : suspects) {
        if (candidate.if_changed) {
            std::vector<std::byte> now(before.size());
            CHECK_OK(domain_.memory().read(candidate.if_changed->place, now));
            if (now == before) continue;
        }
        auto& vcpu = vcpus_.at(id);
        if (vcpu.event && vcpu.event->reason == VM_EVENT_REASON_SINGLESTEP) vcpu.seen = true;
        return StopEvent{.cause = candidate.cause, .vcpu = id, .address = candidate.address};
    }
    return after_step(id);
}

Result<bool> EventExecution::goes_on(const StopEvent& event) {
    const bool hit =
        event.cause == StopEvent::Cause::breakpoint || event.cause == StopEvent::Cause::hardware_breakpoint;
    if (!hit || !judge_ || actions_.at(event.vcpu) != VcpuAction::run) return false;
    judged_ = event.vcpu;
    ++generation_;
    auto judged = judge_(event);
    judged_.reset();
    ++generation_;
    return judged;
}

Result<void> EventExecution::reinject(VcpuId id, std::uint8_t vector) {
    const auto& event = *vcpus_.at(id).event;
    const auto& exception = vector == debug_vector ? event.u.debug_exception : event.u.software_breakpoint;
    return domain_.inject(id, vector, exception.type, exception.insn_length);
}

}  // namespace exo::xen
