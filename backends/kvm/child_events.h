// Waiting for the stops of traced threads together with other things, and with an end: waitpid(2) knows
// neither.
#pragma once

#include <poll.h>

#include <chrono>
#include <span>

namespace exo::kvm {

// Takes over SIGCHLD; before the first thread is traced. Idempotent. leave_children_to_others() for the
// caller.
void watch_children();

// Of the calling thread and those that it starts: they take SIGCHLD in wait_for_child() only. Else the kernel
// may give it to one of them (complete_signal(), kernel/signal.c), which would wake the one that waits.
void leave_children_to_others();

// Returns when a traced thread may have stopped since the last call, when one of `others`, of which there are
// two at most, is as its `events` ask (told in its `revents`), or at `deadline`. May return early.
void wait_for_child(std::chrono::steady_clock::time_point deadline, std::span<pollfd> others = {});

}  // namespace exo::kvm
