// Undoing what a killed exogdb left of its run control in a domain.
#pragma once

#include <string>
#include <vector>

#include "backends/xen/event_domain.h"

namespace exo::xen {

// Puts the guest's bytes and debug registers back, ends its views, disables the monitor, and lets the vCPUs
// go that wait for an answer to an event. What was done, one line each. `domain` has not been used before.
Result<std::vector<std::string>> undo_monitor(EventDomain& domain, MonitorJournal journal);

}  // namespace exo::xen
