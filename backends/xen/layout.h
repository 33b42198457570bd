// Where a domain's memory lies, as its toolstack has laid it out.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "backends/api/memory.h"

namespace exo::xen {

struct Extent {
    std::uint64_t frames = 0;   // that it has, or may have
    std::uint64_t highest = 0;  // number of the last one
    bool has_devices = false;   // HVM: a hole for them below 4 GiB, which its user may have made larger
};

// An HVM or PVH guest's (tools/libs/light/libxl_dom.c, libxl__build_hvm()). In what is no memory, a frame of
// a device that was given to the guest could be mapped, and read.
std::vector<MemoryRegion> regions_of_hvm(const Extent& extent);
// A PV guest's by its own numbers.
std::vector<MemoryRegion> regions_of_pv(std::uint64_t frames);

}  // namespace exo::xen
