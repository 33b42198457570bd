// The parts of a monitor's memory that may be its guest's.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backends/host/process.h"

namespace exo::kvm {

// Adjacent mappings that may be one piece of guest memory.
struct Block {
    std::uint64_t start = 0;
    std::uint64_t end = 0;
    std::vector<std::uint64_t> seams;  // starts of the mappings in it, but for the first

    [[nodiscard]] std::uint64_t size() const { return end - start; }
    [[nodiscard]] bool has(std::uint64_t host) const { return start <= host && host < end; }
};

// Largest first. Read-write memory without code that is anonymous, a memfd, on tmpfs or hugetlbfs, or a file
// mapped shared; not the heap, stacks, libraries or devices.
std::vector<Block> ram_blocks(std::span<const Mapping> mappings);

}  // namespace exo::kvm
