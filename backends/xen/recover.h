// Undoing what a killed exogdb left behind in a domain.
#pragma once

#include <string>
#include <vector>

#include "backends/xen/domain.h"
#include "backends/xen/journal.h"

namespace exo::xen {

// What was done, one line each; nothing if another exogdb was faster. Idempotent.
Result<std::vector<std::string>> recover_domain(const Domain& domain, const JournalEntry& entry);
// What dead owners left of this domain; busy if another exogdb that lives has it.
Result<std::vector<std::string>> recover_stale(const Domain& domain);

}  // namespace exo::xen
