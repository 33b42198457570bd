// Undoing what a killed exogdb left behind in a VMM and its guest.
#pragma once

#include <string>
#include <vector>

#include "backends/kvm/journal.h"
#include "backends/kvm/vm.h"

namespace exo::kvm {

// Writes what is to be undone, before anything is done: who owns the guest, what its kvm_run areas held.
Result<void> begin_journal(JournalEntry& journal, const Vm& vm, const RemoteMemory& memory);

// Puts the guest's bytes back, the threads back to where they were in the VMM, takes KVM's debugging off and
// removes the journal. What was done, one line each; nothing if another exogdb was faster. Idempotent.
Result<std::vector<std::string>> recover_guest(const JournalEntry& entry);

// What a dead owner left of the guest that `journal` names; busy if another exogdb that lives has it.
Result<void> recover_stale(const JournalEntry& journal);

}  // namespace exo::kvm
