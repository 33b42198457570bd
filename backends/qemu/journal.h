// What has to be undone in a guest if this process dies: one file a guest, written before QEMU's stub is
// started and removed after a clean detach.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "backends/api/result.h"
#include "backends/host/process.h"
#include "backends/host/runtime_file.h"

namespace exo::qemu {

// A byte of guest RAM that KVM's int3 replaces.
struct JournalPatch {
    std::uint64_t place = 0;  // guest-physical
    std::uint8_t original = 0;
};

struct JournalEntry {
    std::string target;   // "libvirt:debian", "qemu:/run/vm/qmp.sock"
    std::string connect;  // libvirt URI, empty for the default one
    std::string uuid;     // of the guest, empty if it has none
    pid_t qemu_pid = 0;
    std::uint64_t qemu_start = 0;  // Process::start_time()
    pid_t owner_pid = 0;           // the exogdb that attached
    std::uint64_t owner_start = 0;
    bool was_running = false;           // before attach()
    std::string stub_path;              // socket of the stub that we start
    std::string stub_directory;         // to be removed with it; empty if it is not ours
    std::vector<JournalPatch> patches;  // KVM only; TCG's breakpoints are not in memory
    std::string user_stub;              // gdbserver device that the user had open, empty if none

    // Whether the process that wrote it still runs; a zombie does not.
    [[nodiscard]] bool owner_alive() const;
    [[nodiscard]] bool qemu_alive() const;
    [[nodiscard]] bool is_of(const Process& process) const;
};

Result<void> write_journal(const JournalEntry& entry);
// All that are there; what cannot be read or makes no sense is left out and its path put into `broken`.
std::vector<JournalEntry> read_journals(std::vector<std::string>* broken = nullptr);
void remove_journal(pid_t qemu_pid);

// Held by whoever undoes what `entry` says: a guardian, `exogdb recover` and the next server may all want to,
// and one that closes the stub while another has stopped the guest through it would leave the guest stopped.
// Not valid if nothing is left to undo: somebody else has done it, or the guest has a new owner. Waits for
// the others up to `limit`, then busy.
Result<FileDescriptor> lock_journal(const JournalEntry& entry, std::chrono::milliseconds limit);

// For the tests.
std::string to_text(const JournalEntry& entry);
Result<JournalEntry> parse_journal(const std::string& text);

}  // namespace exo::qemu
