#include "backends/xen/recover.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iterator>

namespace exo::xen {
namespace {

constexpr std::chrono::seconds lock_patience{15};  // for the one that was faster

}  // namespace

Result<std::vector<std::string>> recover_domain(const Domain& domain, const JournalEntry& entry) {
    std::vector<std::string> done;
    const auto lock = TRY(lock_journal(entry, lock_patience));
    if (!lock.valid()) return done;
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
