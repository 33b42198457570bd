#include "backends/xen/monitor_recover.h"

#include <algorithm>
#include <utility>

#include "backends/xen/altp2m.h"

namespace exo::xen {
namespace {

Result<void> put_bytes_back(EventDomain& domain, const MonitorJournal& journal) {
    for (const auto& patch : journal.patches) {
        std::byte now{};
        CHECK_OK(domain.memory().read(patch.place, {&now, 1}));
        const std::byte original{patch.original};
        // What the guest has written there since is the guest's.
        if (now == int3 && original != int3) CHECK_OK(domain.memory().write(patch.place, {&original, 1}));
    }
    return {};
}

Result<void> put_registers_back(EventDomain& domain, const MonitorJournal& journal) {
    for (const auto& own : journal.debug_registers)
        CHECK_OK(domain.change_cpu(own.vcpu, [&](HvmCpu& cpu) {
            cpu.dr0 = own.values.address[0];
            cpu.dr1 = own.values.address[1];
            cpu.dr2 = own.values.address[2];
            cpu.dr3 = own.values.address[3];
            cpu.dr7 = own.values.control;
        }));
    for (const auto vcpu : journal.trap_flags)
        CHECK_OK(domain.change_cpu(vcpu, [](HvmCpu& cpu) { cpu.rflags &= ~trap_flag; }));
    return {};
}

// The monitor's ring is gone with its owner, but a vCPU that waits for a response goes on waiting after it is
// disabled (xen/common/vm_event.c, vm_event_disable() and vm_event_resume()): a new ring has the responses.
Result<void> let_vcpus_go(EventDomain& domain) {
    CHECK_OK(domain.close_events());
    CHECK_OK(domain.open_events());
    auto released = domain.release_vcpus();
    auto closed = domain.close_events();
    return released ? closed : released;
}

Result<void> undo(EventDomain& domain, MonitorJournal& journal, std::vector<std::string>& done) {
    // The guest's bytes first: a vCPU may run into them at any time.
    CHECK_OK(put_bytes_back(domain, journal));
    if (!journal.patches.empty()) done.emplace_back("took out the breakpoints");
    const bool views = journal.altp2m || !journal.views.empty() || !journal.pages.empty();
    HiddenPages pages{domain, journal};
    CHECK_OK(pages.leave());
    if (views) done.emplace_back("ended the views with hidden breakpoints");
    CHECK_OK(put_registers_back(domain, journal));
    if (!journal.debug_registers.empty()) done.emplace_back("gave the guest its debug registers back");
    // Permissions that are not known of any more Xen clears by itself, without a monitor
    // (p2m_mem_access_check(), xen/arch/x86/mm/mem_access.c).
    for (const auto frame : journal.watched) CHECK_OK(domain.set_access(host_view, frame, PageAccess::all));
    if (!journal.events) return {};
    // Refused where the processor has no such steps: then there are none on.
    for (VcpuId id = 0; id < domain.vcpu_count(); ++id) static_cast<void>(domain.set_single_step(id, false));
    CHECK_OK(let_vcpus_go(domain));
    done.emplace_back("disabled the monitor of " + domain.name());
    return {};
}

}  // namespace

Result<std::vector<std::string>> undo_monitor(EventDomain& domain, MonitorJournal journal) {
    std::vector<std::string> done;
    if (journal.empty()) return done;
    CHECK_OK(domain.pause());
    auto undone = undo(domain, journal, done);
    auto running = domain.unpause();
    CHECK_OK(std::move(undone));
    CHECK_OK(std::move(running));
    CHECK_OK(domain.write_journal({}));
    return done;
}

}  // namespace exo::xen
