// What a machine's memory holds and how its vCPUs start.
#pragma once

#include <vector>

#include "tests/lab/vmm/memory.h"
#include "tests/lab/vmm/options.h"

namespace vmm {

// A flat binary. vCPU n starts 16 * n bytes into it with n in RDI (DI), the number of vCPUs in RSI (SI), and
// a stack of its own below 0x80000 (0x7000 in real mode).
void load_bare(const GuestMemory& memory, const MachineOptions& options, const std::vector<int>& vcpu_fds);

// A bzImage by the 64-bit boot protocol (Documentation/arch/x86/boot.rst, Linux 3.3 and later). vCPU 0 runs;
// the kernel finds the others in the ACPI tables and starts them.
void load_linux(const GuestMemory& memory, const MachineOptions& options, const std::vector<int>& vcpu_fds);

}  // namespace vmm
