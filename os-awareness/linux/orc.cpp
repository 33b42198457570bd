#include "os-awareness/linux/orc.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <optional>
#include <utility>

namespace exo::os {
namespace {

using Bases = std::array<std::optional<OrcBase>, 16>;

// ORC_REG_*, by number.
constexpr Bases bases_to_v3 = {OrcBase::undefined,   OrcBase::previous_sp, OrcBase::dx,  OrcBase::di,
                               OrcBase::bp,          OrcBase::sp,          OrcBase::r10, OrcBase::r13,
                               OrcBase::bp_indirect, OrcBase::sp_indirect};
constexpr Bases bases_v4 = {OrcBase::undefined,   OrcBase::ax,          OrcBase::dx,         OrcBase::sp,
                            OrcBase::bp,          OrcBase::di,          OrcBase::r10,        OrcBase::r13,
                            OrcBase::previous_sp, OrcBase::sp_indirect, OrcBase::bp_indirect};

using Types = std::array<std::optional<OrcType>, 8>;

// ORC_TYPE_*, by number.
constexpr Types types_to_v2 = {OrcType::call, OrcType::regs, OrcType::regs_partial};
constexpr Types types_from_v3 = {OrcType::undefined, OrcType::end_of_stack, OrcType::call, OrcType::regs,
                                 OrcType::regs_partial};

// The 16 bits after the offsets: sp_reg 0 to 3, bp_reg 4 to 7, type from 8 on.
struct LayoutRow {
    OrcLayout layout;
    std::string_view name;
    const Bases& bases;
    const Types& types;
    std::uint16_t type_mask;
    std::uint16_t signal;  // these are bits of the 16, 0 if there is none
    std::uint16_t end;
    std::uint16_t unused;
};

// clang-format off
constexpr LayoutRow layouts[] = {
    {OrcLayout::v1, "v1", bases_to_v3, types_to_v2,   3, 0,      0x0400, 0xf800},
    {OrcLayout::v2, "v2", bases_to_v3, types_to_v2,   3, 0x0400, 0x0800, 0xf000},
    {OrcLayout::v3, "v3", bases_to_v3, types_from_v3, 7, 0x0800, 0,      0xf000},
    {OrcLayout::v4, "v4", bases_v4,    types_from_v3, 7, 0x0800, 0,      0xf000},
};
// clang-format on

// .orc_header (b9f174c811e3): a hash over orc_types.h, scripts/orc_hash.sh.
using HeaderHash = std::array<std::uint8_t, 20>;
constexpr std::pair<HeaderHash, OrcLayout> header_hashes[] = {
    {{0xdb, 0x84, 0xae, 0xd4, 0x10, 0x3b, 0x31, 0xdd, 0x51, 0xe0,
      0x17, 0xf8, 0xf7, 0x97, 0x83, 0xca, 0x98, 0x5c, 0x2c, 0x51},
     OrcLayout::v2},
    {{0xfe, 0x5d, 0x32, 0xbf, 0x58, 0x1b, 0xd6, 0x3b, 0x2c, 0xa9,
      0xa5, 0xc6, 0x5b, 0xa5, 0xa6, 0x25, 0xea, 0xb3, 0xfe, 0x24},
     OrcLayout::v3},
    {{0x13, 0x7c, 0x36, 0xad, 0x76, 0x27, 0xc4, 0xdd, 0x55, 0x93,
      0x21, 0x76, 0xbb, 0x0e, 0xcd, 0xbd, 0x50, 0x41, 0xfc, 0x82},
     OrcLayout::v4},
};

struct RawOrcEntry {
    std::int16_t sp_offset = 0;
    std::int16_t bp_offset = 0;
    std::uint16_t flags = 0;
};
static_assert(sizeof(RawOrcEntry) == OrcTable::entry_bytes);

RawOrcEntry entry_at(ConstBytes entries, std::size_t index) {
    RawOrcEntry entry;
    std::memcpy(&entry, entries.subspan(index * sizeof entry).data(), sizeof entry);
    return entry;
}

const LayoutRow& row_of(OrcLayout layout) { return *std::ranges::find(layouts, layout, &LayoutRow::layout); }

// Nothing for what objtool never writes (tools/objtool/orc_gen.c, init_orc_entry).
std::optional<OrcRule> decode(const LayoutRow& layout, const RawOrcEntry& entry) {
    const auto flags = entry.flags;
    const auto sp = layout.bases.at(flags & 15);
    const auto bp = layout.bases.at(flags >> 4 & 15);
    auto type = layout.types.at(flags >> 8 & layout.type_mask);
    if ((flags & layout.unused) != 0 || !sp || !bp || !type || *sp == OrcBase::previous_sp) {
        return std::nullopt;
    }
    if (*bp != OrcBase::undefined && *bp != OrcBase::previous_sp && *bp != OrcBase::bp) return std::nullopt;
    const bool end = (flags & layout.end) != 0;
    const bool signal = (flags & layout.signal) != 0;
    if (*sp == OrcBase::undefined) {
        // Up to v2 this is what an entry without type says.
        const auto none = layout.end == 0 ? OrcType::undefined : OrcType::call;
        const bool ends = end || *type == OrcType::end_of_stack;
        if ((*type != none && *type != OrcType::end_of_stack) || signal || *bp != OrcBase::undefined) {
            return std::nullopt;
        }
        return OrcRule{.type = ends ? OrcType::end_of_stack : OrcType::undefined};
    }
    if (end || *type == OrcType::undefined || *type == OrcType::end_of_stack) return std::nullopt;
    if (*type != OrcType::call && *bp != OrcBase::undefined) return std::nullopt;
    return OrcRule{*type, *sp, *bp, entry.sp_offset, entry.bp_offset};
}

// What tells layouts apart where every entry is valid in more than one: most code is of the kind "call,
// found from the stack pointer".
struct LayoutScore {
    std::size_t malformed = 0;
    std::size_t typical = 0;
};

LayoutScore score(const LayoutRow& layout, ConstBytes entries) {
    LayoutScore result;
    for (std::size_t i = 0; i < entries.size() / OrcTable::entry_bytes; ++i) {
        const auto rule = decode(layout, entry_at(entries, i));
        if (!rule) ++result.malformed;
        if (rule && rule->type == OrcType::call && rule->sp == OrcBase::sp) ++result.typical;
    }
    return result;
}

std::optional<OrcLayout> layout_by_header(AddressSpace& space, const SymbolTable& symbols) {
    const auto begin = symbols.find("__start_orc_header");
    if (!begin) return std::nullopt;
    HeaderHash hash{};
    if (!space.read(*begin, std::as_writable_bytes(std::span{hash}))) return std::nullopt;
    const auto* known = std::ranges::find(header_hashes, hash, &std::pair<HeaderHash, OrcLayout>::first);
    if (known == std::end(header_hashes)) return std::nullopt;
    return known->second;
}

struct OrcBytes {
    std::vector<std::byte> ips, entries;
};

Result<std::vector<std::byte>> read_entries(AddressSpace& space, const OrcLocation& location) {
    if (location.count == 0 || location.count > OrcTable::max_rows) {
        return fail(Errc::bad_data, "ORC table of " + std::to_string(location.count) + " entries");
    }
    std::vector<std::byte> entries(location.count * OrcTable::entry_bytes);
    CHECK_OK(space.read(location.entries, entries));
    return entries;
}

Result<OrcBytes> read_bytes(AddressSpace& space, const OrcLocation& location) {
    OrcBytes bytes;
    bytes.entries = TRY(read_entries(space, location));
    bytes.ips.resize(location.count * sizeof(std::int32_t));
    CHECK_OK(space.read(location.ips, bytes.ips));
    return bytes;
}

// A broken entry is not another layout.
bool is_layout_of(std::size_t malformed, std::size_t count) { return malformed <= count / 100; }

Result<OrcSummary> kernel_layout(AddressSpace& space, const SymbolTable& symbols, const OrcLocation& location,
                                 ConstBytes entries) {
    if (const auto layout = layout_by_header(space, symbols)) {
        if (is_layout_of(score(row_of(*layout), entries).malformed, location.count)) {
            return OrcSummary{location, *layout, ".orc_header"};
        }
    }
    return OrcSummary{location, TRY(detect_orc_layout(entries)), "what is valid"};
}

// Of several entries for one address the kernel's search ends at the last, and its sorting puts those that
// only end a section first (kernel/unwind_orc.c: __orc_find, orc_sort_cmp).
void put_in_order(std::vector<OrcRow>& rows) {
    if (!std::ranges::is_sorted(rows, {}, &OrcRow::address)) {
        std::ranges::stable_sort(rows, {}, [](const OrcRow& row) {
            return std::pair{row.address, row.rule.type != OrcType::undefined};
        });
    }
    std::size_t kept = 0;
    for (const auto& row : rows) {
        if (kept != 0 && rows[kept - 1].address == row.address) --kept;
        rows[kept++] = row;
    }
    rows.resize(kept);
}

OrcTable decode_table(const OrcLocation& location, const OrcBytes& bytes, OrcLayout layout) {
    OrcTable table;
    table.layout = layout;
    table.rows.reserve(location.count);
    for (std::size_t i = 0; i < location.count; ++i) {
        std::int32_t distance = 0;
        std::memcpy(&distance, bytes.ips.data() + i * sizeof distance, sizeof distance);
        const auto place = location.ips + i * sizeof distance;
        const auto rule = decode(row_of(layout), entry_at(bytes.entries, i));
        if (!rule) ++table.malformed;
        table.rows.push_back(
            {place + static_cast<std::uint64_t>(std::int64_t{distance}), rule.value_or(OrcRule{})});
    }
    put_in_order(table.rows);
    return table;
}

}  // namespace

std::string_view to_string(OrcLayout layout) { return row_of(layout).name; }

const OrcRule* OrcTable::rule_at(VirtualAddress begin, VirtualAddress address) const {
    const auto after = std::ranges::upper_bound(rows, address, {}, &OrcRow::address);
    if (after == rows.begin()) return nullptr;
    const auto& row = *std::prev(after);
    return row.address < begin ? nullptr : &row.rule;
}

std::string OrcTable::description() const {
    std::string text = std::to_string(rows.size()) + " rows, layout " + std::string{to_string(layout)};
    if (!layout_found_by.empty()) text += " (" + layout_found_by + ")";
    if (malformed != 0) text += ", " + std::to_string(malformed) + " entries malformed";
    return text;
}

Result<OrcLocation> find_orc(const SymbolTable& symbols) {
    const auto ips = symbols.find("__start_orc_unwind_ip");
    const auto ips_end = symbols.find("__stop_orc_unwind_ip");
    const auto entries = symbols.find("__start_orc_unwind");
    const auto entries_end = symbols.find("__stop_orc_unwind");
    if (!ips || !ips_end || !entries || !entries_end) {
        return fail(Errc::not_found, "no symbols of ORC tables: built without them, or without data symbols");
    }
    const auto count = (raw(*ips_end) - raw(*ips)) / sizeof(std::int32_t);
    if (*ips_end < *ips || *entries_end < *entries ||
        count != (raw(*entries_end) - raw(*entries)) / OrcTable::entry_bytes) {
        return fail(Errc::bad_data, "ORC tables: addresses and entries differ in number");
    }
    return OrcLocation{*ips, *entries, count};
}

Result<OrcLayout> detect_orc_layout(ConstBytes entries) {
    const auto count = entries.size() / OrcTable::entry_bytes;
    const LayoutRow* best = nullptr;
    LayoutScore best_score;
    for (const auto& layout : layouts) {
        const auto found = score(layout, entries);
        const bool better = !best || found.malformed < best_score.malformed ||
                            (found.malformed == best_score.malformed && found.typical > best_score.typical);
        if (!better) continue;
        best = &layout;
        best_score = found;
    }
    if (count == 0 || best_score.typical == 0 || !is_layout_of(best_score.malformed, count)) {
        return fail(Errc::bad_data, "ORC entries in no known layout: at best " +
                                        std::to_string(best_score.malformed) + " of " +
                                        std::to_string(count) + " are malformed");
    }
    return best->layout;
}

Result<OrcSummary> summarize_kernel_orc(AddressSpace& space, const SymbolTable& symbols) {
    const auto location = TRY(find_orc(symbols));
    const auto entries = TRY(read_entries(space, location));
    return kernel_layout(space, symbols, location, entries);
}

Result<OrcTable> read_kernel_orc(AddressSpace& space, const SymbolTable& symbols) {
    const auto location = TRY(find_orc(symbols));
    const auto bytes = TRY(read_bytes(space, location));
    auto found = TRY(kernel_layout(space, symbols, location, bytes.entries));
    auto table = decode_table(location, bytes, found.layout);
    table.layout_found_by = std::move(found.layout_found_by);
    return table;
}

Result<OrcTable> read_orc(AddressSpace& space, const OrcLocation& location, OrcLayout layout) {
    return decode_table(location, TRY(read_bytes(space, location)), layout);
}

}  // namespace exo::os
