// The guest-physical memory map as `info mtree -f` prints it. A pure parser.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/memory.h"
#include "backends/api/result.h"

namespace exo::qemu {

// One line of a FlatView: "START-END (prio N, TYPE): NAME @OFFSET", END inclusive.
struct MapRange {
    MemoryRegion region;
    std::uint64_t block_offset = 0;  // of region.start in the RAM block `region.name`
    std::uint64_t host = 0;          // where QEMU has it, by gpa2hva; 0 for mmio

    [[nodiscard]] bool same_place(const MapRange& other) const {
        return region.start == other.region.start && region.size == other.region.size &&
               region.kind == other.region.kind && region.name == other.region.name &&
               block_offset == other.block_offset;
    }
};

// The FlatView that has the address space "memory" (what devices and a CPU outside SMM see), else that of
// cpu-memory-0. Sorted, disjoint; `host` is still 0. bad_data if there is none or a line of it makes no
// sense.
Result<std::vector<MapRange>> parse_flat_view(std::string_view text);

// "Host virtual address for 0x0 (pc.ram) is 0x7fb3afe00000"; nothing on any other answer.
std::optional<std::uint64_t> parse_gpa2hva(std::string_view text);

}  // namespace exo::qemu
