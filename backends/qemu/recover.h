// Undoing what a killed exogdb left behind in a guest.
#pragma once

#include <string>
#include <vector>

#include "backends/qemu/journal.h"
#include "backends/qemu/monitor.h"

namespace exo::qemu {

// Takes the breakpoints out, lets the guest run if it ran before, closes the stub, opens the user's own again
// and removes the journal. What was done, one line each. Idempotent. busy if somebody is connected to the
// stub.
Result<std::vector<std::string>> recover_guest(Monitor& monitor, const Process& process,
                                               const JournalEntry& entry);

}  // namespace exo::qemu
