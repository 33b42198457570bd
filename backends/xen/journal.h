// What has to be undone in a domain if this process dies: one file a domain, written before it is paused for
// the first time and removed when it has been given back.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "backends/api/result.h"
#include "backends/host/file_descriptor.h"
#include "backends/xen/monitor_journal.h"

namespace exo::xen {

struct JournalEntry {
    std::string target;  // what the user calls it: "xen:debian"
    std::string name;    // the toolstack's
    std::uint32_t domain = 0;
    std::string uuid;     // the number may be another domain's by now
    pid_t owner_pid = 0;  // the exogdb that attached
    std::uint64_t owner_start = 0;
    // One of the pauses is ours, or is about to be, or was a moment ago: pauses nest, and Xen does not tell
    // how many there are. An unpause too many is refused where there is none (EINVAL).
    bool holds = false;
    MonitorJournal monitor;

    [[nodiscard]] bool owner_alive() const;
    [[nodiscard]] bool is_of(std::uint32_t id, const std::string& of_uuid) const {
        return domain == id && uuid == of_uuid;
    }
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

}  // namespace exo::xen
