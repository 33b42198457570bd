#include "os-awareness/scan.h"

#include <algorithm>
#include <vector>

namespace exo::os {
namespace {

constexpr std::uint64_t scan_page = 4096;

// Of one region: true to go on.
bool scan_region(PhysicalMemory& memory, const MemoryRegion& region, std::size_t overlap,
                 const std::function<bool(PhysicalAddress, ConstBytes)>& visit,
                 std::vector<std::byte>& buffer, std::uint64_t& bytes_left) {
    std::uint64_t at = raw(region.start);
    std::size_t kept = 0;  // bytes of the chunk before, at the front of the buffer
    while (at < region.end() && bytes_left > 0) {
        const auto want = std::min<std::uint64_t>({buffer.size() - kept, region.end() - at, bytes_left});
        const auto count = memory.read_some(PhysicalAddress{at}, MutableBytes{buffer}.subspan(kept, want));
        if (!count || *count == 0) {
            at = std::min(region.end(), (at / scan_page + 1) * scan_page);
            bytes_left -= std::min(bytes_left, scan_page);
            kept = 0;
            continue;
        }
        const std::size_t have = kept + *count;
        if (!visit(PhysicalAddress{at - kept}, ConstBytes{buffer}.first(have))) return false;
        at += *count;
        bytes_left -= *count;
        const std::size_t keep = std::min(overlap, have);
        std::copy_n(buffer.begin() + static_cast<std::ptrdiff_t>(have - keep), keep, buffer.begin());
        kept = keep;
    }
    return true;
}

}  // namespace

bool for_each_chunk(PhysicalMemory& memory, std::size_t overlap,
                    const std::function<bool(PhysicalAddress, ConstBytes)>& visit, ScanLimits limits) {
    std::vector<std::byte> buffer(limits.chunk + overlap);
    std::uint64_t bytes_left = limits.bytes;
    for (const MemoryRegion& region : memory.regions()) {
        if (region.kind != MemoryRegion::Kind::ram) continue;
        if (bytes_left == 0) return false;
        if (!scan_region(memory, region, overlap, visit, buffer, bytes_left)) return true;
        if (bytes_left == 0) return false;
    }
    return true;
}

bool find_in_ram(PhysicalMemory& memory, std::string_view needle, std::uint64_t alignment,
                 const std::function<bool(PhysicalAddress)>& visit, ScanLimits limits) {
    const auto look = [&](PhysicalAddress start, ConstBytes bytes) {
        const auto text = as_text(bytes);
        if (alignment >= scan_page) {  // few places: look at them only
            const std::uint64_t first = (raw(start) + alignment - 1) / alignment * alignment - raw(start);
            for (std::uint64_t at = first; at + needle.size() <= text.size(); at += alignment) {
                if (text.substr(at).starts_with(needle) && !visit(start + at)) return false;
            }
            return true;
        }
        for (auto at = text.find(needle); at != text.npos; at = text.find(needle, at + 1)) {
            if ((raw(start) + at) % alignment == 0 && !visit(start + at)) return false;
        }
        return true;
    };
    return for_each_chunk(memory, needle.size() - 1, look, limits);
}

}  // namespace exo::os
