#include "backends/xen/recover.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <iterator>

#include "backends/xen/foreign_frames.h"
#include "backends/xen/monitor_recover.h"
#include "backends/xen/monitored_domain.h"

namespace exo::xen {
namespace {

constexpr std::chrono::seconds lock_patience{15};  // for the one that was faster

// Of a guest whose monitor another exogdb had: the same parts as a target has.
Result<std::vector<std::string>> undo_monitor_of(const Domain& domain, const MonitorJournal& journal) {
    const auto info = TRY(domain.info());
    ForeignFrames frames{domain.xen(), domain.id()};
    xen_pfn_t highest = 0;
    if (xc_domain_maximum_gpfn(domain.xen().control(), domain.id(), &highest) < 0)
        return fail(domain.xen().error("memory of " + domain.text(), errno));
    // Where the patches are, there is RAM.
    ForeignMemory memory{frames,
                         nullptr,
                         {{.start = PhysicalAddress{0}, .size = (highest + 1) * page_bytes, .name = "ram"}},
                         {}};
    const auto vcpus = hvm_vcpus(domain.xen(), domain.id());
    MonitoredDomain monitored{{domain, memory, frames, *vcpus, info.max_vcpu_id + 1}, std::nullopt};
    return undo_monitor(monitored, journal);
}

}  // namespace

Result<std::vector<std::string>> recover_domain(const Domain& domain, const JournalEntry& entry) {
    std::vector<std::string> done;
    const auto lock = TRY(lock_journal(entry, lock_patience));
    if (!lock.valid()) return done;
    if (!entry.monitor.empty()) done = TRY(undo_monitor_of(domain, entry.monitor));
    if (entry.holds) {
        CHECK_OK(domain.unpause());
        done.push_back("let " + domain.text() + " run");
    }
    remove_journal(entry);
    return done;
}

Result<std::vector<std::string>> recover_stale(const Domain& domain) {
    std::vector<std::string> done;
    for (const auto& entry : read_journals()) {
        if (!entry.is_of(domain.id(), domain.uuid()) || entry.owner_pid == ::getpid()) continue;
        if (entry.owner_alive())
            return fail(Errc::busy, "exogdb process " + std::to_string(entry.owner_pid) + " has " +
                                        domain.text() + "; connect to that one, or end it");
        std::ranges::move(TRY(recover_domain(domain, entry)), std::back_inserter(done));
    }
    return done;
}

}  // namespace exo::xen
