// What the registry calls: opening, listing, checking and recovering guests of Xen. Needs none of Xen's
// headers.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backends/api/discovery.h"
#include "backends/api/target.h"

namespace exo::xen {

// False: Xen's libraries were absent when this program was built, and everything below says so (absent.cpp).
bool is_built();

// `words`: what follows "xen:", a domain's number or name.
Result<std::unique_ptr<Target>> open(const std::string& words);
// Undoes what killed ones have left in that domain; of one that is gone, too.
Result<RecoverReport> recover(const std::string& words);
std::vector<Check> diagnose(const std::string& words);
// Of a machine that does not run under Xen, or of another domain than dom0: none.
Result<std::vector<GuestSummary>> list();
// Whether there is a domain of that name, or something to be undone in one.
bool has_domain(const std::string& name);

}  // namespace exo::xen
