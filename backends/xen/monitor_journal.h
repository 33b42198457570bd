// What has to be undone in a domain whose monitor was ours, if this process dies: part of the backend's
// journal, written before what it names is done.
#pragma once

#include <array>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <vector>

#include "backends/api/memory.h"
#include "backends/api/result.h"

namespace exo::xen {

// DR0 to DR3 and DR7.
struct DebugRegisterValues {
    std::array<std::uint64_t, 4> address{};
    std::uint64_t control = 0;
    friend bool operator==(const DebugRegisterValues&, const DebugRegisterValues&) = default;
};

struct MonitorJournal {
    // A byte of the guest's memory that an int3 replaces.
    struct Patch {
        PhysicalAddress place{};
        std::uint8_t original = 0;
    };
    // What the guest itself has in a vCPU's debug registers.
    struct DebugRegisters {
        std::uint32_t vcpu = 0;
        DebugRegisterValues values;
    };
    bool events = false;                 // the domain's vm_event ring is ours
    bool altp2m = false;                 // alternate views of its memory were switched on by us
    std::vector<std::uint16_t> views;    // that we made
    std::uint64_t maximum = 0;           // the domain's limit of memory before pages were added, in KiB
    std::vector<std::uint64_t> pages;    // frame numbers of what was added
    std::vector<std::uint64_t> watched;  // frame numbers of those whose permissions we took
    std::vector<Patch> patches;
    std::vector<DebugRegisters> debug_registers;
    std::vector<std::uint32_t> trap_flags;  // of vCPUs that step by EFLAGS.TF

    [[nodiscard]] bool empty() const {
        return !events && !altp2m && views.empty() && maximum == 0 && pages.empty() && watched.empty() &&
               patches.empty() && debug_registers.empty() && trap_flags.empty();
    }
};

boost::json::object to_json(const MonitorJournal& journal);
Result<MonitorJournal> parse_monitor_journal(const boost::json::value& value);

}  // namespace exo::xen
