// Bounded searches in guest memory, in bulk: a backend's read costs microseconds, whatever its size.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "backends/api/memory.h"

namespace exo::os {

struct ScanLimits {
    std::uint64_t bytes = std::uint64_t{16} << 30;  // read at most so many
    std::size_t chunk = std::size_t{1} << 20;       // bytes a read; a multiple of 4 KiB
};

// Calls `visit` with the RAM of each region, chunk by chunk in address order, until it returns false. Each
// chunk after the first of a region begins `overlap` bytes (less than a chunk) before the end of the one
// before, so that what lies across a border is seen whole. What cannot be read is skipped by pages of 4 KiB.
// True if everything within the limits was seen or `visit` ended it, false if a limit did.
bool for_each_chunk(PhysicalMemory& memory, std::size_t overlap,
                    const std::function<bool(PhysicalAddress, ConstBytes)>& visit, ScanLimits limits = {});

// Calls `visit` for each occurrence of `needle` (not empty, at most 4 KiB) at a multiple of `alignment`, once
// each, until it returns false.
bool find_in_ram(PhysicalMemory& memory, std::string_view needle, std::uint64_t alignment,
                 const std::function<bool(PhysicalAddress)>& visit, ScanLimits limits = {});

}  // namespace exo::os
