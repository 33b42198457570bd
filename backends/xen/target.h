// A guest of Xen as a Target: xen:DOMID or xen:NAME.
#pragma once

#include <memory>

#include "backends/api/target.h"
#include "backends/xen/domain.h"

namespace exo::xen {

// Does not stop the guest. `words` are the user's, for messages and the journal.
Result<std::unique_ptr<Target>> open_domain(Domain domain, const std::string& words);

}  // namespace exo::xen
