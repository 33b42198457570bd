#include "backends/xen/event_execution.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace exo::xen {
namespace {

constexpr std::uint64_t dr6_breakpoints = 0xf;  // B0 to B3
// X86_EVENTTYPE_HW_EXCEPTION of Xen's, as HVMOP_inject_trap has it; ICEBP's #DB is another.
constexpr std::uint8_t hardware_exception = 3;

}  // namespace

EventExecution::EventExecution(EventDomain& domain, const EventAbilities& abilities)
    : domain_(domain),
      abilities_(abilities),
      pages_(domain, journal_),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      vcpus_(domain.vcpu_count()) {}

EventExecution::~EventExecution() { static_cast<void>(detach()); }

Result<StopEvent> EventExecution::attach() {
    if (attached_ && !running_) return StopEvent{};
    if (!taken_) CHECK_OK(take());
    attached_ = true;
    CHECK_OK(stop_all());
    running_ = false;
    events_.clear();
    take_interrupt();
    ++generation_;
    CHECK_OK(domain_.stands());
    return StopEvent{};
}

Result<void> EventExecution::take() {
    CHECK_OK(domain_.begin());
    journal_ = {};
    journal_.events = true;
    auto opened = pause();
    if (opened) opened = save();
    if (opened) opened = domain_.open_events();
    if (!opened) {
        journal_.events = false;
        static_cast<void>(save());
        static_cast<void>(unpause());
        domain_.end();
        return opened;
    }
    taken_ = true;
    vcpus_.assign(domain_.vcpu_count(), {});
    delivered_.clear();
    applied_ = {};
    if (abilities_.monitor_trap) CHECK_OK(deliver(EventKind::step, true));
    return {};
}

Result<void> EventExecution::detach() {
    if (!taken_) return {};
    domain_.runs();
    const auto life = domain_.life();
    const bool gone = !life || *life == DomainLife::gone;
    auto given = gone ? Result<void>{} : give_back();
    if (gone) static_cast<void>(domain_.close_events());
    // What could not be undone stays in the journal, for `exogdb recover`.
    if (given) domain_.end();
    software_.clear();
    debug_.clear();
    watches_.clear();
    taken_ = attached_ = running_ = paused_ = false;
    ++generation_;
    return given;
}

Result<void> EventExecution::give_back() {
    Result<void> result;
    const auto keep = [&](Result<void> next) {
        if (result && !next) result = std::move(next);
    };
    keep(collect_traps());
    keep(pause());
    keep(drain());
    keep(remove_all());
    keep(pages_.leave());
    for (VcpuId id = 0; id < vcpus_.size(); ++id) keep(set_step(id, false));
    // An int3 is executed again, now for the guest. A trap is not.
    for (const auto kind : {EventKind::int3, EventKind::step, EventKind::debug_exception})
        keep(deliver(kind, false));
    for (VcpuId id = 0; id < vcpus_.size(); ++id) {
        const auto& vcpu = vcpus_[id];
        if (!vcpu.event) continue;
        const bool guests_own =
            vcpu.event->reason == VM_EVENT_REASON_DEBUG_EXCEPTION && !vcpu.seen && !vcpu.debug;
        const auto& exception = vcpu.event->u.debug_exception;
        if (guests_own) keep(domain_.inject(id, debug_vector, exception.type, exception.insn_length));
        keep(answer(id));
    }
    keep(domain_.close_events());
    journal_.events = false;
    keep(save());
    keep(unpause());
    return result;
}

Result<void> EventExecution::pause() {
    if (paused_) return {};
    CHECK_OK(domain_.pause());
    paused_ = true;
    return {};
}

Result<void> EventExecution::unpause() {
    if (!paused_) return {};
    CHECK_OK(domain_.unpause());
    paused_ = false;
    return {};
}

bool EventExecution::all_stand() const {
    return std::ranges::all_of(vcpus_, [](const Vcpu& vcpu) { return vcpu.event.has_value(); });
}

Result<void> EventExecution::stop_all() {
    if (!all_stand()) CHECK_OK(pause());
    return drain();
}

Result<void> EventExecution::drain() {
    while (const auto event = TRY(domain_.next_event())) CHECK_OK(note(*event));
    return {};
}

Result<void> EventExecution::note(const VmEvent& event) {
    const VcpuId id = event.vcpu_id;
    if (id >= vcpus_.size() || (event.flags & VM_EVENT_FLAG_VCPU_PAUSED) == 0 || vcpus_[id].event)
        return domain_.answer(event);  // of nothing that was asked for
    auto& vcpu = vcpus_[id];
    vcpu.event = event;
    vcpu.seen = vcpu.parked = false;
    vcpu.debug.reset();
    if (event.reason != VM_EVENT_REASON_DEBUG_EXCEPTION) return {};
    const auto rip = VirtualAddress{event.data.regs.x86.rip};
    if (!abilities_.monitor_trap) {
        // Of nothing but the trap flag, since there are no breakpoints; DR6 is not shown (svm_save_dr() saves
        // it once the guest has used its debug registers). A guest that steps itself meanwhile is not thought
        // of.
        const bool ours = vcpu.stepping || vcpu.owes_trap;
        if (!ours || event.u.debug_exception.type != hardware_exception) return {};
        vcpu.debug = StopEvent{.cause = StopEvent::Cause::step, .vcpu = id, .address = rip};
        if (vcpu.stepping) return hide_trap_flag(id, event);
        return set_trap_flag(id, false);  // the one that was owed
    }
    // Which register it was, DR6 alone tells: the event's pending_dbg is 0, and its dr6 is what it was when
    // the vCPU was last switched to.
    const auto dr6 = TRY(domain_.cpu(id)).dr6;
    vcpu.debug = debug_.event(id, dr6);
    if (!vcpu.debug) return {};
    return domain_.change_cpu(id, [](HvmCpu& cpu) { cpu.dr6 &= ~dr6_breakpoints; });
}

Result<void> EventExecution::answer(VcpuId id, std::optional<ViewId> view) {
    auto& vcpu = vcpus_.at(id);
    if (!vcpu.event) return {};
    // Registers are never given with it (VM_EVENT_FLAG_SET_REGISTERS): who writes them writes the vCPU's own.
    VmEvent response = *vcpu.event;
    response.flags &= VM_EVENT_FLAG_VCPU_PAUSED;
    if (pages_.open()) {
        response.flags |= VM_EVENT_FLAG_ALTERNATE_P2M;
        response.altp2m_idx = view.value_or(pages_.view());
    }
    vcpu.event.reset();
    vcpu.seen = vcpu.parked = false;
    vcpu.debug.reset();
    return domain_.answer(response);
}

Result<void> EventExecution::set_step(VcpuId id, bool on) {
    auto& vcpu = vcpus_.at(id);
    if (vcpu.stepping == on) return {};
    if (abilities_.monitor_trap) {
        CHECK_OK(domain_.set_single_step(id, on));
        vcpu.stepping = on;
        return {};
    }
    return set_trap_flag(id, on);
}

Result<void> EventExecution::deliver(EventKind kind, bool wanted) {
    auto& now = delivered_[kind];
    if (now == wanted) return {};
    CHECK_OK(domain_.deliver(kind, wanted));
    now = wanted;
    return {};
}

void EventExecution::interrupt() noexcept {
    const std::uint64_t one = 1;
    static_cast<void>(::write(wake_.get(), &one, sizeof one) == 0);
}

bool EventExecution::take_interrupt() {
    std::uint64_t count = 0;
    return ::read(wake_.get(), &count, sizeof count) == sizeof count;
}

}  // namespace exo::xen
