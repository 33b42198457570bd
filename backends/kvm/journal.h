// What has to be undone in a VMM and its guest if this process dies: one file a VMM, written before the first
// of its threads is stopped and removed when the last one goes free. What changes at each stop is in the
// VMM's own memory (ThreadRecord).
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "backends/api/result.h"
#include "backends/host/file_descriptor.h"
#include "backends/kvm/springboard.h"

namespace exo::kvm {

// A byte of guest RAM that an int3 replaces.
struct JournalPatch {
    std::uint64_t host = 0;  // its address in the VMM
    std::uint8_t original = 0;
};

struct JournalEntry {
    std::string target;  // what the user calls it: "kvm:4711", "libvirt:debian --connect qemu:///session"
    pid_t vmm_pid = 0;
    std::uint64_t vmm_start = 0;  // Process::start_time()
    int vm_fd = -1;
    pid_t owner_pid = 0;  // the exogdb that attached
    std::uint64_t owner_start = 0;
    Springboard board;
    // Of each vCPU: where its kvm_run is, and what its kvm_valid_regs was.
    struct Run {
        int fd = -1;
        std::uint64_t address = 0;
        std::uint64_t valid = 0;
    };
    std::vector<Run> runs;
    std::vector<JournalPatch> patches;

    // Whether the process still runs; a zombie does not.
    [[nodiscard]] bool owner_alive() const;
    [[nodiscard]] bool vmm_alive() const;
};

Result<void> write_journal(const JournalEntry& entry);
// All that are there and make sense.
std::vector<JournalEntry> read_journals();
void remove_journal(const JournalEntry& entry);
// Held by whoever undoes what it says; not valid if nothing is left to undo. busy after `limit`.
Result<FileDescriptor> lock_journal(const JournalEntry& entry, std::chrono::milliseconds limit);

// For the tests.
std::string to_text(const JournalEntry& entry);
Result<JournalEntry> parse_journal(const std::string& text);

}  // namespace exo::kvm
