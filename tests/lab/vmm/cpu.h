// Registers that vCPUs start with.
#pragma once

#include <cstdint>

#include "tests/lab/vmm/memory.h"

namespace vmm {

// What KVM can do on this host, with the vCPU's own APIC id.
void set_cpuid(int kvm_fd, int vcpu_fd, unsigned index);

// Page tables that map the first `gib` GiB to themselves in 2 MiB pages, and a descriptor table: both below
// 0x30000. Selectors 0x10 (code) and 0x18 (data) are those that the 64-bit boot protocol of Linux wants.
void write_long_mode_tables(const GuestMemory& memory, unsigned gib);

struct Start {
    uint64_t instruction = 0;
    uint64_t stack = 0;
    uint64_t rdi = 0;
    uint64_t rsi = 0;
};

// 64-bit mode on those tables, interrupts off; SSE may be used.
void start_long_mode(int vcpu_fd, const Start& start);

// 16-bit real mode, all segments but SS at `base`; start.instruction is an offset in it.
void start_real_mode(int vcpu_fd, uint64_t base, const Start& start);

}  // namespace vmm
