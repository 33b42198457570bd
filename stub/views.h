// What the client has attached: the kernel with all tasks, processes of the guest, or both. A task of an
// attached process has two thread-ids while the kernel is attached too.
#pragma once

#include <cstdint>
#include <optional>
#include <set>

#include "stub/thread_map.h"

namespace exo::stub {

// A zombie, or dead.
inline bool has_exited(const os::Task& task) { return task.ended || task.state == 'Z' || task.state == 'X'; }

struct Views {
    bool kernel = true;
    std::set<std::int64_t> processes;  // by the guest's pid

    [[nodiscard]] bool has(std::int64_t pid) const {
        return pid == kernel_pid ? kernel : processes.contains(pid);
    }
    [[nodiscard]] bool any() const { return kernel || !processes.empty(); }
    // The attached process that `thread` belongs to.
    [[nodiscard]] std::optional<std::int64_t> process_of(const Thread& thread) const {
        const auto pid = guest_process(thread);
        return pid && processes.contains(*pid) ? pid : std::nullopt;
    }
    [[nodiscard]] static std::optional<std::int64_t> guest_process(const Thread& thread) {
        if (!thread.task || thread.task->idle || thread.task->kernel_thread) return std::nullopt;
        return thread.task->tgid;
    }
};

}  // namespace exo::stub
