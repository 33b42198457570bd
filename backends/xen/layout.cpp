#include "backends/xen/layout.h"

#include <algorithm>

#include "backends/xen/frames.h"

namespace exo::xen {
namespace {

constexpr std::uint64_t frame_of_4g = 0x100000;
constexpr std::uint64_t devices_hole = 0xf0000;  // hvm/e820.h, HVM_BELOW_4G_RAM_END
constexpr std::uint64_t pvh_hole = 0xfeff8;      // X86_HVM_END_SPECIAL_REGION - X86_HVM_NR_SPECIAL_PAGES

MemoryRegion region(std::uint64_t first, std::uint64_t end) {
    return {PhysicalAddress{first << page_shift}, (end - first) << page_shift, MemoryRegion::Kind::ram,
            "xen.ram"};
}

}  // namespace

std::vector<MemoryRegion> regions_of_hvm(const Extent& extent) {
    std::vector<MemoryRegion> regions;
    const auto hole = extent.has_devices ? devices_hole : pvh_hole;
    const auto low = std::min({extent.frames, hole, extent.highest + 1});
    if (low > 0) regions.push_back(region(0, low));
    const auto high = frame_of_4g + (extent.has_devices ? extent.frames : extent.frames - low);
    const auto end = std::min(high, extent.highest + 1);
    if (end > frame_of_4g) regions.push_back(region(frame_of_4g, end));
    return regions;
}

std::vector<MemoryRegion> regions_of_pv(std::uint64_t frames) {
    if (frames == 0) return {};
    return {region(0, frames)};
}

}  // namespace exo::xen
