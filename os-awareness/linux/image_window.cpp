#include "os-awareness/linux/image_window.h"

#include <algorithm>

namespace exo::os {
namespace {

// Modules, where they share the window with the image, lie above it with a range for each page.
constexpr std::size_t ranges_limit = 64;

}  // namespace

std::optional<ImageWindow> find_image_window(PageTables& tables) {
    std::vector<ImageWindow> ranges;
    const auto visit = [&](const PageTables::Leaf& leaf) {
        const std::uint64_t size = leaf.translation.page_size;
        const auto same = std::ranges::find_if(ranges, [&](const ImageWindow& range) {
            return range.physical_of(leaf.start) == leaf.translation.physical;
        });
        if (same != ranges.end()) {
            same->end = leaf.start + size;
            same->mapped += size;
            return true;
        }
        if (ranges.size() == ranges_limit) return false;
        ranges.push_back({leaf.start, leaf.start + size, leaf.translation.physical, size});
        return true;
    };
    // 1 GiB of 4 KiB pages is 514 tables; what is more was not made by a kernel.
    constexpr std::size_t tables_limit = 600;
    (void)tables.for_each_leaf(kernel_window, kernel_window_bytes, visit, tables_limit);
    const auto largest = std::ranges::max_element(ranges, {}, &ImageWindow::mapped);
    if (largest == ranges.end()) return std::nullopt;
    return *largest;
}

std::vector<std::byte> read_image(PhysicalMemory& memory, const ImageWindow& window, std::uint64_t limit) {
    constexpr std::uint64_t page_bytes = 4096;
    std::vector<std::byte> bytes(std::min(limit, raw(window.end) - raw(window.start)));
    std::uint64_t at = 0;
    while (at < bytes.size()) {
        const auto count = memory.read_some(window.physical + at, MutableBytes{bytes}.subspan(at));
        at += count && *count > 0 ? *count : page_bytes - (raw(window.physical) + at) % page_bytes;
    }
    return bytes;
}

}  // namespace exo::os
