// Holding vCPUs, and letting one past what keeps it from its next instruction: of EventExecution.
#include <algorithm>
#include <set>

#include "backends/xen/event_execution.h"

namespace exo::xen {
namespace {

using namespace std::chrono_literals;

// A vCPU of a busy host may wait that long for its turn.
constexpr auto park_limit = 2s;
constexpr auto step_limit = 2s;
// How long it takes to find out that one waits in HLT.
constexpr auto look_for_event = 10ms;
// Pages that one instruction may touch: two operands, each at a border.
constexpr int pages_of_instruction = 8;

}  // namespace

// Every vCPU stands at an event afterwards, where it stood before; but those in HLT, which will at the first
// instruction that they come to. The domain is not paused any more.
Result<void> EventExecution::park_all() {
    CHECK_OK(stop_all());
    std::set<std::uint64_t> frames;
    for (VcpuId id = 0; id < vcpus_.size(); ++id) {
        auto& vcpu = vcpus_[id];
        if (vcpu.event) continue;
        const auto cpu = domain_.cpu(id);
        if (!cpu) continue;  // not started
        // With single-stepping on, no interrupt comes before.
        CHECK_OK(set_step(id, true));
        if (!abilities_.monitor_trap) continue;
        // One whose code is not mapped takes its page fault, and stands behind that.
        if (const auto place = locate(id, VirtualAddress{cpu->rip})) frames.insert(frame_of(*place));
    }
    for (const auto frame : frames)
        CHECK_OK(domain_.set_access(pages_.view(), frame, PageAccess::read_write));
    CHECK_OK(unpause());
    const auto deadline = Clock::now() + park_limit;
    Result<void> result;
    for (VcpuId id = 0; id < vcpus_.size(); ++id) {
        auto& vcpu = vcpus_[id];
        if (vcpu.event) continue;
        const auto came = wait_for_event(id, deadline);
        if (!came) result = fail(came.error());
        if (!came || !*came) continue;
        vcpu.parked = true;
        const bool did_nothing = vcpu.event->reason == VM_EVENT_REASON_MEM_ACCESS &&
                                 (vcpu.event->u.mem_access.flags & MEM_ACCESS_RW) == 0;
        if (did_nothing) vcpu.seen = true;
    }
    for (const auto frame : frames) {
        auto applied = apply_access(frame);
        if (result) result = std::move(applied);
    }
    return result;
}

// Those that were held for a moment alone.
Result<void> EventExecution::restart_parked() {
    for (VcpuId id = 0; id < vcpus_.size(); ++id)
        if (vcpus_[id].parked) CHECK_OK(start_one(id));
    return {};
}

// False: it has none after that time, or is idle.
Result<bool> EventExecution::wait_for_event(VcpuId id, Clock::time_point deadline) {
    for (;;) {
        CHECK_OK(drain());
        if (vcpus_.at(id).event) return true;
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
        if (left <= 0ms) return false;
        if (TRY(domain_.wait(-1, std::min<std::chrono::milliseconds>(left, look_for_event)))) continue;
        if (TRY(domain_.life()) == DomainLife::gone)
            return fail(Errc::target_gone, domain_.name() + " is gone");
        if (TRY(domain_.idle(id))) return false;
    }
}

// One instruction of a vCPU that stands at an event; at the next one afterwards, or in HLT.
Result<void> EventExecution::pass(VcpuId id, const Lift& how) {
    const bool exclusive = how.alone && vcpus_.size() > 1;
    if (exclusive) CHECK_OK(park_all());
    if (how.lift) CHECK_OK(how.lift());
    auto stepped = set_step(id, true);
    if (stepped) stepped = answer(id, how.view);
    if (stepped) stepped = unpause();
    bool came = false;
    if (stepped) {
        auto waited = wait_for_event(id, Clock::now() + step_limit);
        if (waited)
            came = *waited;
        else
            stepped = fail(std::move(waited).error());
    }
    if (!came && stepped) {
        stepped = pause();
        if (stepped) stepped = drain();
    }
    if (how.put_back) {
        auto back = how.put_back();
        if (stepped) stepped = std::move(back);
    }
    CHECK_OK(std::move(stepped));
    if (!came && !vcpus_.at(id).event) {
        if (pages_.open()) CHECK_OK(domain_.switch_to_view(pages_.view()));
        CHECK_OK(start_one(id));
        CHECK_OK(unpause());
    }
    return exclusive ? restart_parked() : Result<void>{};
}

// Of a vCPU that stands at it.
Result<void> EventExecution::get_past(VcpuId id, const Software& breakpoint) {
    Lift how{.alone = !breakpoint.hidden, .view = pages_.bare_view()};
    if (breakpoint.original == int3) {  // it is one of the guest's, too: the guest gets it
        const auto type = vcpus_.at(id).event->u.software_breakpoint.type;
        const auto length = vcpus_.at(id).event->u.software_breakpoint.insn_length;
        how.alone = false;
        how.lift = [=, this] { return domain_.inject(id, breakpoint_vector, type, length); };
    } else if (breakpoint.hidden) {
        how.put_back = [=, this] { return pages_.refresh(frame_of(breakpoint.place)); };
    } else {
        how.lift = [=, this] { return write_byte(breakpoint.place, breakpoint.original); };
        how.put_back = [=, this]() -> Result<void> {
            std::byte now{};
            CHECK_OK(domain_.memory().read(breakpoint.place, {&now, 1}));
            // What it has written there itself stays; the client will find that its breakpoint is gone.
            return now == breakpoint.original ? write_byte(breakpoint.place, int3) : Result<void>{};
        };
    }
    return pass(id, how);
}

Result<void> EventExecution::suspect(VcpuId id, std::vector<Suspect>& suspects) {
    for (const auto& candidate : watches_.candidates(*vcpus_.at(id).event)) {
        std::vector<std::byte> before(candidate.if_changed ? candidate.if_changed->length : 0);
        if (candidate.if_changed) CHECK_OK(domain_.memory().read(candidate.if_changed->place, before));
        suspects.push_back({candidate, std::move(before)});
    }
    std::ranges::stable_partition(suspects, [](const Suspect& row) { return !row.candidate.if_changed; });
    return {};
}

// Lets the access happen that a vCPU stands before. Without views one page after the other is opened, since
// an instruction may need more than one.
Result<void> EventExecution::step_with_access(VcpuId id, std::vector<Suspect>& suspects) {
    std::set<std::uint64_t> frames;
    const auto rip = vcpus_.at(id).event->data.regs.x86.rip;
    for (int i = 0; i < pages_of_instruction; ++i) {
        CHECK_OK(suspect(id, suspects));
        frames.insert(vcpus_.at(id).event->u.mem_access.gfn);
        Lift how{.alone = !pages_.open(), .view = host_view};
        const auto found = software_.find(rip);
        const auto breakpoint = found == software_.end() ? std::optional<Software>{} : found->second;
        // It has come past that int3: the instruction has begun.
        const bool lifts = how.alone && breakpoint && !breakpoint->hidden;
        if (how.alone) {
            how.lift = [&]() -> Result<void> {
                if (lifts) CHECK_OK(write_byte(breakpoint->place, breakpoint->original));
                for (const auto frame : frames)
                    CHECK_OK(domain_.set_access(host_view, frame, PageAccess::all));
                return {};
            };
            how.put_back = [&]() -> Result<void> {
                for (const auto frame : frames) CHECK_OK(apply_access(frame));
                return lifts ? write_byte(breakpoint->place, int3) : Result<void>{};
            };
        }
        CHECK_OK(pass(id, how));
        const auto& vcpu = vcpus_.at(id);
        const bool again = vcpu.event && !vcpu.seen && vcpu.event->reason == VM_EVENT_REASON_MEM_ACCESS &&
                           vcpu.event->data.regs.x86.rip == rip;
        if (!again) return {};
    }
    return {};
}

}  // namespace exo::xen
