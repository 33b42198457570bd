// Undoing what a killed exogdb left behind in a guest.
#pragma once

#include <string>
#include <vector>

#include "backends/qemu/journal.h"
#include "backends/qemu/memory.h"
#include "backends/qemu/monitor.h"
#include "backends/qemu/stub_client.h"

namespace exo::qemu {

// Takes the breakpoints out, lets the guest run if it ran before, closes the stub, opens the user's own again
// and removes the journal. What was done, one line each; nothing if another exogdb was faster. Idempotent.
// busy if somebody is connected to the stub.
Result<std::vector<std::string>> recover_guest(Monitor& monitor, const Process& process,
                                               const JournalEntry& entry);

// What a dead owner left of this guest; busy if another exogdb that lives has it.
Result<void> recover_stale(Monitor& monitor, const Process& process);

// Puts the original byte back where there is still an int3.
Result<void> undo_patch(StubClient& client, GuestMemory& memory, const JournalPatch& patch);

}  // namespace exo::qemu
