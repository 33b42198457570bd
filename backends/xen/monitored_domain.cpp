#include "backends/xen/monitored_domain.h"

#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "backends/host/process.h"
#include "backends/xen/recover.h"

namespace exo::xen {
namespace {

constexpr std::uint32_t has(unsigned event) { return std::uint32_t{1} << event; }

}  // namespace

Result<EventAbilities> abilities_of(const Domain& domain) {
    auto* control = domain.xen().control();
    std::uint32_t bits = 0;
    if (xc_monitor_get_capabilities(control, domain.id(), &bits) != 0) {
        if (errno == EOPNOTSUPP || errno == ENOSYS) return EventAbilities{};
        return fail(domain.xen().error("the monitor of " + domain.text(), errno));
    }
    EventAbilities abilities{.int3 = (bits & has(XEN_DOMCTL_MONITOR_EVENT_SOFTWARE_BREAKPOINT)) != 0,
                             .debug_exceptions = (bits & has(XEN_DOMCTL_MONITOR_EVENT_DEBUG_EXCEPTION)) != 0,
                             .monitor_trap = (bits & has(XEN_DOMCTL_MONITOR_EVENT_SINGLESTEP)) != 0};
    // Whether it is allowed by the hypervisor's command line and by the domain's configuration; views that
    // are in use already are another's.
    std::uint64_t mode = XEN_ALTP2M_disabled;
    bool active = false;
    abilities.views = xc_hvm_param_get(control, domain.id(), HVM_PARAM_ALTP2M, &mode) == 0 &&
                      mode != XEN_ALTP2M_disabled &&
                      xc_altp2m_get_domain_state(control, domain.id(), &active) == 0 && !active;
    return abilities;
}

MonitoredDomain::MonitoredDomain(const Parts& parts, std::optional<JournalEntry> journal)
    : parts_(parts), journal_(std::move(journal)) {}

MonitoredDomain::~MonitoredDomain() {
    if (channel_ != nullptr) ::xenevtchn_close(channel_);
    if (page_ != nullptr) ::munmap(page_, ring_page_size);
}

Result<void> MonitoredDomain::check(int rc, std::string_view what) const {
    if (rc >= 0) return {};
    const int number = errno;
    return fail(parts_.domain.xen().error(std::string{what} + " of " + name(), number));
}

Result<void> MonitoredDomain::save() { return journal_ ? xen::write_journal(*journal_) : Result<void>{}; }

Result<void> MonitoredDomain::write_journal(const MonitorJournal& journal) {
    if (!journal_) return {};
    journal_->monitor = journal;
    return save();
}

// --- the domain as a whole

void MonitoredDomain::explain(const xc_dominfo_t& info) {
    why_.clear();
    if (condition_of(info) == Condition::crashed)
        why_ = "the guest has crashed, and the toolstack keeps it as it was then; it cannot go on";
    else if (info.paused != 0)
        why_ = "the toolstack has paused it; `xl unpause " + parts_.domain.name() + "` lets it go on";
}

Result<DomainLife> MonitoredDomain::life() {
    const auto info = parts_.domain.info();
    if (!info && info.error().code != Errc::target_gone) return fail(info.error());
    if (!info || condition_of(*info) == Condition::gone) {
        parts_.memory.release();  // what is mapped keeps a domain that has been destroyed
        return DomainLife::gone;
    }
    const bool ours = journal_ && journal_->holds;
    if (ours || !by_others_.lasts(*info, StandsByOthers::Clock::now())) return DomainLife::runs;
    explain(*info);
    return DomainLife::held;
}

Result<void> MonitoredDomain::begin() {
    CHECK_OK(recover_stale(parts_.domain));
    const auto info = TRY(parts_.domain.info());
    switch (condition_of(info)) {
        case Condition::gone: return fail(Errc::target_gone, name() + " is being destroyed");
        case Condition::suspended:
            return fail(Errc::busy, name() + " is being saved or migrated; try again when that is over");
        case Condition::crashed:
        case Condition::none: break;
    }
    explain(info);
    if (!journal_) return {};
    journal_->owner_pid = ::getpid();
    journal_->owner_start = start_time_of(::getpid()).value_or(0);
    return {};
}

void MonitoredDomain::end() {
    if (journal_) remove_journal(*journal_);
}

Result<void> MonitoredDomain::pause() {
    if (journal_) journal_->holds = true;
    by_others_.forget();
    CHECK_OK(save());
    return parts_.domain.pause();
}

Result<void> MonitoredDomain::unpause() {
    CHECK_OK(parts_.domain.unpause());
    if (journal_) journal_->holds = false;
    return save();
}

Result<void> MonitoredDomain::stands() {
    parts_.memory.stands(TRY(parts_.domain.info()).nr_pages);
    return {};
}

void MonitoredDomain::runs() {
    why_.clear();
    parts_.memory.runs();
}

// --- events

Result<void> MonitoredDomain::open_events() {
    std::uint32_t remote = 0;
    page_ = xc_monitor_enable(control(), id(), &remote);
    if (page_ == nullptr) {
        if (errno == EBUSY)
            return fail(Errc::busy,
                        "another tool has the monitor of " + name() + " (its vm_event ring); end that tool");
        return check(-1, "the monitor");
    }
    ring_.emplace(std::span{static_cast<std::byte*>(page_), ring_page_size});
    channel_ = ::xenevtchn_open(nullptr, 0);
    if (channel_ != nullptr) port_ = ::xenevtchn_bind_interdomain(channel_, id(), remote);
    if (channel_ != nullptr && port_ >= 0) return {};
    auto failed = check(-1, "the event channel of the monitor");
    static_cast<void>(close_events());
    return failed;
}

Result<void> MonitoredDomain::close_events() {
    if (channel_ != nullptr) ::xenevtchn_close(std::exchange(channel_, nullptr));
    port_ = -1;
    ring_.reset();
    // The page is the hypervisor's until nobody has it mapped.
    if (page_ != nullptr) ::munmap(std::exchange(page_, nullptr), ring_page_size);
    return check(xc_monitor_disable(control(), id()), "disabling the monitor");
}

Result<void> MonitoredDomain::deliver(EventKind kind, bool wanted) {
    int rc = 0;
    switch (kind) {
        case EventKind::int3: rc = xc_monitor_software_breakpoint(control(), id(), wanted); break;
        case EventKind::step: rc = xc_monitor_singlestep(control(), id(), wanted); break;
        case EventKind::debug_exception:
            rc = xc_monitor_debug_exceptions(control(), id(), wanted, true);
            break;
    }
    if (rc < 0 && errno == EEXIST) return {};  // it is so already
    return check(rc, "events");
}

Result<std::optional<VmEvent>> MonitoredDomain::next_event() {
    if (!ring_) return fail(Errc::backend, "the monitor of " + name() + " is not enabled");
    return ring_->next();
}

Result<void> MonitoredDomain::notify() {
    return check(::xenevtchn_notify(channel_, static_cast<evtchn_port_t>(port_)), "answering an event");
}

Result<void> MonitoredDomain::answer(const VmEvent& response) {
    if (!ring_) return fail(Errc::backend, "the monitor of " + name() + " is not enabled");
    CHECK_OK(ring_->answer(response));
    return notify();
}

Result<bool> MonitoredDomain::wait(int wake, std::chrono::milliseconds limit) {
    std::array<pollfd, 2> files{pollfd{channel_ != nullptr ? ::xenevtchn_fd(channel_) : -1, POLLIN, 0},
                                pollfd{wake, POLLIN, 0}};
    if (::poll(files.data(), files.size(), static_cast<int>(limit.count())) <= 0) return false;
    if ((files[0].revents & POLLIN) != 0) {
        const auto port = ::xenevtchn_pending(channel_);
        if (port >= 0)
            CHECK_OK(check(::xenevtchn_unmask(channel_, static_cast<evtchn_port_t>(port)), "events"));
    }
    return true;
}

// The hypervisor takes each response within the call that tells it (evtchn_send()), so that the ring has room
// for the next. One for a vCPU that waits for none is nothing (vm_event_resume()).
Result<void> MonitoredDomain::release_vcpus() {
    if (!ring_) return fail(Errc::backend, "the monitor of " + name() + " is not enabled");
    for (VcpuId vcpu = 0; vcpu < parts_.vcpu_count; ++vcpu) {
        ring_->release(vcpu);
        CHECK_OK(notify());
    }
    return {};
}

// --- vCPUs

Result<void> MonitoredDomain::set_single_step(VcpuId vcpu, bool on) {
    return check(xc_domain_debug_control(
                     control(), id(),
                     on ? XEN_DOMCTL_DEBUG_OP_SINGLE_STEP_ON : XEN_DOMCTL_DEBUG_OP_SINGLE_STEP_OFF, vcpu),
                 "a step");
}

Result<void> MonitoredDomain::inject(VcpuId vcpu, std::uint8_t vector, std::uint8_t type,
                                     std::uint32_t instruction_length) {
    constexpr std::uint32_t no_error_code = ~std::uint32_t{0};
    return check(xc_hvm_inject_trap(control(), id(), static_cast<int>(vcpu), vector, type, no_error_code,
                                    static_cast<std::uint8_t>(instruction_length), 0),
                 "an exception");
}

Result<HvmCpu> MonitoredDomain::cpu(VcpuId vcpu) {
    HvmCpu cpu{};
    const int rc = xc_domain_hvm_getcontext_partial(control(), id(), HVM_SAVE_CODE(CPU),
                                                    static_cast<std::uint16_t>(vcpu), &cpu, sizeof cpu);
    CHECK_OK(check(rc, "registers of vCPU " + std::to_string(vcpu)));
    return cpu;
}

// Of what run control changes all is in the other structure, which is written without anything beside.
Result<void> MonitoredDomain::change_cpu(VcpuId vcpu, const std::function<void(HvmCpu&)>& change) {
    auto cpu = TRY(this->cpu(vcpu));
    change(cpu);
    return parts_.vcpus.change(vcpu, [&](vcpu_guest_context_t& context) {
        context.user_regs.rflags = cpu.rflags;
        context.debugreg[0] = cpu.dr0;
        context.debugreg[1] = cpu.dr1;
        context.debugreg[2] = cpu.dr2;
        context.debugreg[3] = cpu.dr3;
        context.debugreg[6] = cpu.dr6;
        context.debugreg[7] = cpu.dr7;
    });
}

}  // namespace exo::xen
