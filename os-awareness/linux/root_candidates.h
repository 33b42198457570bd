// Page-table roots through which a kernel may be seen.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "os-awareness/os.h"
#include "os-awareness/page_tables.h"

namespace exo::os {

struct RootCandidate {
    PhysicalAddress root{};
    x86::PagingMode mode = x86::PagingMode::levels4;
    std::string how;  // "CR3 of vCPU 0"
};

// From each vCPU's CR3, as it is and as the kernel's half of a KPTI pair. What a vCPU does not offer is told
// in `failure`. No root twice.
std::vector<RootCandidate> roots_of_vcpus(std::span<const RegisterSet> vcpus, ProbeFailure& failure);

// Whether a search of all RAM is worth its time: not if every vCPU is known to execute firmware or a boot
// loader (no long mode, or supervisor code at a low address), where at most a former kernel's remains would
// be found.
bool may_run_a_kernel(std::span<const RegisterSet> vcpus);

// Searches RAM for tables that map the kernel window as a kernel does, whatever the vCPUs say: for a vCPU
// that runs a nested guest, or whose registers cannot be read. Each found by the table of the window is
// offered once, until `accept` returns true. 5-level tables are seen from their second level down, so each is
// of 4 levels.
void scan_for_roots(PhysicalMemory& memory, const std::function<bool(const RootCandidate&)>& accept);

}  // namespace exo::os
