// RSP thread-ids of what the machine has: guest tasks where an OS is recognised, else vCPUs. The one place
// that merges the two.
//
//   thread                      pid         tid
//   thread of a process that
//   the client has attached     the guest's the guest's TID      (stub/views.h; beside the next)
//   guest task                  kernel_pid  the guest's TID
//   idle task of CPU n          kernel_pid  idle_tid + n
//   vCPU n, no OS recognised    kernel_pid  n + 1
//   vCPU n, task not known      kernel_pid  vcpu_tid + n
//   a second task with one TID,
//   or a TID that cannot be     kernel_pid  duplicate_tid + its place   (a corrupt guest)
//
// All synthetic ids lie above Linux' PID_MAX_LIMIT (include/linux/threads.h), so that guest pids stay
// free for guest processes, and no host process can have them (lldb looks up a pid it is given on the host).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "rsp/thread_id.h"
#include "stub/machine.h"

namespace exo::stub {

inline constexpr std::uint32_t pid_max_limit = 4194304;
inline constexpr std::uint32_t most_cpus = 0x100000;  // as many ids as there are below vcpu_tid
inline constexpr std::int64_t kernel_pid = 0x500000;
inline constexpr std::int64_t idle_tid = 0x500001;
inline constexpr std::int64_t vcpu_tid = 0x600001;
inline constexpr std::int64_t duplicate_tid = 0x700001;

// What a client's thread-id stands for, across stops.
using ThreadKey = std::int64_t;  // the tid

struct Thread {
    ThreadKey tid = 0;
    std::optional<VcpuId> vcpu;  // on which it runs now
    std::optional<os::Task> task;
    std::string name;
    std::string process;            // "bash[123]"
    std::int64_t pid = kernel_pid;  // whose thread it is to the client: of an attached process, in user mode

    [[nodiscard]] bool of_kernel() const { return pid == kernel_pid; }
    [[nodiscard]] rsp::ThreadId id() const { return {pid, tid}; }
};

class ThreadMap {
public:
    // Of the machine as it was last looked at. At most one thread is on each vCPU.
    void rebuild(Machine& machine, bool vcpus_only);
    // The thread on `vcpu` of a machine that stands, as rebuild() would have it, without a list of them all.
    // Nothing where only that can tell.
    static std::optional<Thread> current(Machine& machine, VcpuId vcpu, bool vcpus_only);
    // Whether ids were given that are not the guest's own TIDs, since tasks had the same or an impossible
    // one.
    [[nodiscard]] bool has_duplicates() const { return has_duplicates_; }
    // The thread whose stop is reported, since gdb takes the first one listed for the current one.
    void put_first(ThreadKey tid);

    [[nodiscard]] const std::vector<Thread>& threads() const { return threads_; }
    [[nodiscard]] const Thread* find(ThreadKey tid) const;
    [[nodiscard]] const Thread* on_vcpu(VcpuId vcpu) const;
    // Whether the pid part of a thread-id, which may be a pattern, is of our process.
    [[nodiscard]] static bool names_process(std::int64_t pid);
    // Whether `id`, which may be a pattern, names at least one thread here.
    [[nodiscard]] const Thread* match(rsp::ThreadId id) const;

private:
    void index();
    std::vector<Thread> threads_;
    bool has_duplicates_ = false;
    std::map<ThreadKey, std::size_t> by_tid_;
};

// "S (interruptible sleep), CPU 1, process bash[123], wchan do_wait"
std::string extra_info(const Thread& thread, os::OsAwareness* os);

}  // namespace exo::stub
