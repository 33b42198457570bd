#include "backends/qemu/memory_map.h"

#include <algorithm>
#include <charconv>

namespace exo::qemu {
namespace {

std::optional<std::uint64_t> hex_number(std::string_view text) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

// QEMU system/memory.c, memory_region_type() and mtree_print_flatview(): "rom" is printed for every
// read-only range, "nv-" before the type of non-volatile memory.
struct TypeName {
    std::string_view name;
    MemoryRegion::Kind kind;
};
constexpr TypeName type_names[] = {
    {"ram", MemoryRegion::Kind::ram},   {"rom", MemoryRegion::Kind::rom},
    {"romd", MemoryRegion::Kind::rom},   // flash in its read mode: reads as memory, a write is a command
    {"ramd", MemoryRegion::Kind::mmio},  // a device's BAR mapped through (vfio): reads reach the device
    {"i/o", MemoryRegion::Kind::mmio},
};

std::optional<MemoryRegion::Kind> kind_of(std::string_view type) {
    if (type.starts_with("nv-")) type.remove_prefix(3);
    for (const auto& [name, kind] : type_names)
        if (name == type) return kind;
    return std::nullopt;
}

// "NAME", "NAME @OFFSET", each followed by " KVM" for each address space that KVM knows it in.
void take_name(std::string_view text, MapRange& range) {
    constexpr std::string_view accelerator = " KVM";
    while (text.ends_with(accelerator)) text.remove_suffix(accelerator.size());
    if (const auto at = text.rfind(" @"); at != std::string_view::npos) {
        if (const auto offset = hex_number(text.substr(at + 2))) {
            range.block_offset = *offset;
            text = text.substr(0, at);
        }
    }
    range.region.name = std::string{text};
}

std::optional<MapRange> parse_range(std::string_view line) {
    const auto dash = line.find('-');
    const auto open = line.find(" (prio ");
    const auto comma = line.find(", ", open == std::string_view::npos ? 0 : open);
    const auto close = line.find("): ", comma == std::string_view::npos ? 0 : comma);
    if (dash == std::string_view::npos || open == std::string_view::npos || dash > open ||
        comma == std::string_view::npos || close == std::string_view::npos)
        return std::nullopt;
    const auto start = hex_number(line.substr(0, dash));
    const auto last = hex_number(line.substr(dash + 1, open - dash - 1));
    const auto kind = kind_of(line.substr(comma + 2, close - comma - 2));
    if (!start || !last || !kind || *last < *start || *start == UINT64_MAX) return std::nullopt;
    MapRange range;
    range.region.start = PhysicalAddress{*start};
    // The last byte of the address space is left out, so that end() does not wrap.
    range.region.size = std::min(*last, UINT64_MAX - 1) - *start + 1;
    range.region.kind = *kind;
    take_name(line.substr(close + 3), range);
    return range;
}

Result<std::vector<MapRange>> parse_ranges(std::string_view view) {
    std::vector<MapRange> ranges;
    while (!view.empty()) {
        auto line = view.substr(0, view.find('\n'));
        view.remove_prefix(std::min(view.size(), line.size() + 1));
        if (!line.starts_with("  ") || line.find(" (prio ") == std::string_view::npos) continue;
        line.remove_prefix(line.find_first_not_of(' '));
        auto range = parse_range(line);
        if (!range)
            return fail(Errc::bad_data, "memory map of QEMU: cannot read the line " + std::string{line});
        if (!ranges.empty() && raw(range->region.start) < ranges.back().region.end())
            return fail(Errc::bad_data, "memory map of QEMU: ranges overlap at " + hex(range->region.start));
        ranges.push_back(std::move(*range));
    }
    return ranges;
}

}  // namespace

Result<std::vector<MapRange>> parse_flat_view(std::string_view text) {
    for (const std::string_view space : {" AS \"memory\"", " AS \"cpu-memory-0\""}) {
        const auto at = text.find(space);
        if (at == std::string_view::npos) continue;
        // A view ends where the next one starts.
        return parse_ranges(text.substr(at, text.find("\nFlatView ", at) - at));
    }
    return fail(Errc::bad_data, "memory map of QEMU: no address space \"memory\"");
}

std::optional<std::uint64_t> parse_gpa2hva(std::string_view text) {
    constexpr std::string_view mark = ") is 0x";
    const auto at = text.rfind(mark);
    if (!text.starts_with("Host virtual address for ") || at == std::string_view::npos) return std::nullopt;
    text.remove_prefix(at + mark.size());
    return hex_number(text.substr(0, text.find_first_of("\r\n ")));
}

}  // namespace exo::qemu
