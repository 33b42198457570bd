// The client's breakpoints (Z0…Z4) against what is in the machine.
//
// Clients remove all their breakpoints at every stop and insert them again before they resume (gdb's
// `breakpoint always-inserted off`), so a removal only takes effect at the next resume: a breakpoint that
// comes back before costs the machine nothing. An insertion takes effect at once, since its error has to
// reach the user.
//
// A software breakpoint that the machine refuses (its page is not mapped yet, or there is no kernel yet that
// would not overwrite it) becomes a hardware one; with no debug register free it stays pending, is tried
// again at each resume, and `monitor breakpoints` says so.
//
// A watchpoint of any length is one here. Where the machine takes but what one debug register can watch (1,
// 2, 4 or 8 bytes, aligned), it has as many of them as it takes, as gdb does it for native programs
// (gdb/nat/x86-dregs.c, x86_handle_nonaligned_watchpoint).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "rsp/stop_reply.h"
#include "stub/machine.h"
#include "stub/thread_map.h"

namespace exo::stub {

struct BreakpointKey {
    BreakpointKind kind{};
    VirtualAddress address{};
    std::uint32_t length = 1;
    // In whose address space: of a process that the client has attached, or of whatever runs. What the
    // machine has is of all of them, and a hit by another process passes unseen.
    std::int64_t process = kernel_pid;
    friend auto operator<=>(const BreakpointKey&, const BreakpointKey&) = default;
};

// What a hit of it is called in a stop reply.
inline rsp::StopReply::Reason reason_of(BreakpointKind kind) {
    using Reason = rsp::StopReply::Reason;
    return kind == BreakpointKind::software ? Reason::swbreak : Reason::hwbreak;
}

struct BreakpointState {
    std::uint32_t wanted = 0;               // by how many: the client, and run control's own
    std::optional<BreakpointKind> armed;    // what it is in the machine, nothing while pending
    std::vector<BreakpointKey> parts;       // of which it is made there
    std::uint64_t os_generation = 0;        // Machine::os_generation() when it was put there
    std::optional<PhysicalAddress> hidden;  // its byte in CleanMemory
    std::string pending_reason;
    bool told = false;  // that it is pending
    bool by_client = false;
};

class BreakpointTable {
public:
    // `hardware_only`: each is in a debug register, or pending, and none changes guest memory.
    explicit BreakpointTable(Machine& machine, bool hardware_only = false)
        : machine_(machine), hardware_only_(hardware_only) {}

    [[nodiscard]] bool supports(BreakpointKind kind) const;

    // The client's own. Idempotent: gdb inserts the same one again from a second inferior.
    Result<void> insert(const BreakpointKey& key);
    void remove(const BreakpointKey& key);
    void remove_all();
    // Those of a process, which the client has detached; their keys.
    std::vector<BreakpointKey> remove_of(std::int64_t process);

    // Run control's own, on top of the client's.
    Result<void> insert_internal(VirtualAddress address, std::int64_t process = kernel_pid);
    void remove_internal(VirtualAddress address, std::int64_t process = kernel_pid);

    // Before the guest runs: what is no longer wanted goes, what is pending is tried again.
    // One that was put in for another kernel, or for none, is put in anew.
    Result<void> settle();
    // Whether a pending one might be taken now, as far as a look at a guest that runs can tell.
    [[nodiscard]] bool worth_another_try();
    // What became pending since the last call, one line each: once for each breakpoint.
    [[nodiscard]] std::vector<std::string> take_news() { return std::exchange(news_, {}); }
    // Takes the execution breakpoints at `address` out of the machine, and puts them back: around a step over
    // them.
    Result<void> lift(VirtualAddress address);
    Result<void> put_back(VirtualAddress address);

    // The client's execution breakpoint at `address`, and as what it counts: software or hardware.
    [[nodiscard]] std::optional<BreakpointKind> client_breakpoint_at(VirtualAddress address) const;
    // All of them there, of whatever process.
    [[nodiscard]] std::vector<BreakpointKey> client_breakpoints_at(VirtualAddress address) const;
    [[nodiscard]] bool any_at(VirtualAddress address) const;
    [[nodiscard]] bool has_client(const BreakpointKey& key) const;
    // Whether a step from `address` gets past the breakpoints there with them in place (as the target says).
    [[nodiscard]] bool steps_in_place(VirtualAddress address) const;
    // The client's watchpoints that were hit at `address`, which may be that of a part of one.
    [[nodiscard]] std::vector<BreakpointKey> watched_by_client(VirtualAddress address) const;

    // After detach: the machine has none of them any more.
    void forget();

    [[nodiscard]] const std::map<BreakpointKey, BreakpointState>& all() const { return table_; }

private:
    [[nodiscard]] std::vector<BreakpointKind> candidates(const BreakpointKey& key) const;
    // One more wants it. Where it cannot be armed: an error, or pending.
    Result<void> want(const BreakpointKey& key, bool may_be_pending);
    Result<void> take_out_of_another_kernel();
    Result<void> arm(const BreakpointKey& key, BreakpointState& state);
    Result<void> try_to_arm(const BreakpointKey& key, BreakpointState& state, bool& full);
    Result<void> arm_as(BreakpointKind kind, const BreakpointKey& key, BreakpointState& state);
    Result<void> arm_parts(const BreakpointKey& key, BreakpointState& state);
    Result<void> insert_slot(const BreakpointKey& slot);
    Result<void> remove_slot(const BreakpointKey& slot);
    Result<void> disarm(BreakpointState& state);
    void hide(const BreakpointKey& key, BreakpointState& state);
    void reveal(BreakpointState& state);

    Machine& machine_;
    bool hardware_only_;
    std::map<BreakpointKey, BreakpointState> table_;
    // What the machine has, and for how many rows: a Z0 that became a hardware one may meet a Z1, a part of
    // a watchpoint that of another.
    std::map<BreakpointKey, std::uint32_t> in_machine_;
    std::vector<std::string> news_;
};

}  // namespace exo::stub
