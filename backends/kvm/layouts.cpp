#include "backends/kvm/layouts.h"

#include <array>

namespace exo::kvm {
namespace {

// clang-format off
constexpr auto splits = std::to_array<Split>({
    {0xe000'0000, 0xc000'0000, "QEMU pc: hw/i386/pc_piix.c, pc_init1()"},
    {0xb000'0000, 0x8000'0000, "QEMU q35: hw/i386/pc_q35.c, pc_q35_init()"},
    {0xc000'0000, 0xc000'0000, "QEMU microvm: hw/i386/microvm.c; cloud-hypervisor: arch/src/x86_64/layout.rs, "
                               "MEM_32BIT_RESERVED_START; Firecracker from 1.14: arch/x86_64/layout.rs"},
    {0xd000'0000, 0xd000'0000, "Firecracker: MMIO32_MEM_START; crosvm: x86_64/src/lib.rs, "
                               "END_ADDR_BEFORE_32BITS; kvmtool: x86/include/kvm/kvm-arch.h, KVM_32BIT_GAP_START"},
    {0xe000'0000, 0xe000'0000, "QEMU pc before 2.0, without gigabyte_align"},
    {0x8000'0000, 0x8000'0000, "QEMU, -machine max-ram-below-4g=2G"},
    {0x4000'0000, 0x4000'0000, "QEMU, -machine max-ram-below-4g=1G"},
    {0x1'0000'0000, 0x1'0000'0000, "the gap is left free inside one mapping"},
});
// clang-format on

// The other is above AMD's HyperTransport area: hw/i386/pc.c, pc_set_amd_above_4g_mem_start().
constexpr auto high_starts = std::to_array<std::uint64_t>({0x1'0000'0000, 0x100'0000'0000});

}  // namespace

std::span<const Split> known_splits() { return splits; }

std::span<const std::uint64_t> known_high_starts() { return high_starts; }

std::uint64_t next_split(std::uint64_t address, std::uint64_t size) {
    std::uint64_t next = 0;
    for (const Split& split : splits) {
        if (size < split.from || size == split.low || split.low <= address) continue;
        if (next == 0 || split.low < next) next = split.low;
    }
    return next;
}

}  // namespace exo::kvm
