// Waiting for the stops of traced threads together with other things, and with an end: waitpid(2) knows
// neither.
#pragma once

#include <chrono>

namespace exo::kvm {

// Takes over SIGCHLD; before the first thread is traced. Idempotent.
void watch_children();

// Returns when a traced thread may have stopped since the last call, when `wake` (a descriptor, or -1) can be
// read, or at `deadline`; true if `wake` can. May return early.
bool wait_for_child(std::chrono::steady_clock::time_point deadline, int wake = -1);

}  // namespace exo::kvm
