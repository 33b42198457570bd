// The window of virtual addresses in which x86-64 Linux maps its image, seen through some page tables.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "os-awareness/page_tables.h"

namespace exo::os {

// __START_KERNEL_map (Documentation/arch/x86/x86_64/mm.rst) and the largest KERNEL_IMAGE_SIZE
// (arch/x86/include/asm/page_64_types.h), which randomisation of the image's address uses in full.
inline constexpr VirtualAddress kernel_window{0xffff'ffff'8000'0000};
inline constexpr std::uint64_t kernel_window_bytes = std::uint64_t{1} << 30;

// A range of the window that is contiguous in physical memory too, but for holes: a kernel that has booted
// unmaps its init sections. The image is one.
struct ImageWindow {
    VirtualAddress start{};
    VirtualAddress end{};
    PhysicalAddress physical{};  // of start
    std::uint64_t mapped = 0;    // bytes, without the holes

    [[nodiscard]] PhysicalAddress physical_of(VirtualAddress a) const {
        return physical + (raw(a) - raw(start));
    }
    [[nodiscard]] bool contains(VirtualAddress a) const { return raw(a) >= raw(start) && raw(a) < raw(end); }
};

// The largest such range; nothing if the tables map nothing in the window.
std::optional<ImageWindow> find_image_window(PageTables& tables);

// All its bytes up to `limit`, those that cannot be read as zeros.
std::vector<std::byte> read_image(PhysicalMemory& memory, const ImageWindow& window, std::uint64_t limit);

}  // namespace exo::os
