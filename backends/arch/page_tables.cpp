#include "backends/arch/page_tables.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <tuple>
#include <vector>

namespace exo::x86 {
namespace {

constexpr std::uint64_t entry_present = 1U << 0;
constexpr std::uint64_t entry_writable = 1U << 1;
constexpr std::uint64_t entry_user = 1U << 2;
constexpr std::uint64_t entry_large = 1U << 7;
constexpr std::uint64_t entry_no_execute = 1ULL << 63;

// Intel SDM vol. 3A 4.3–4.5, tables 4-1 … 4-20.
constexpr unsigned large_shift = 21;  // the smallest page above 4 KiB, but for 32-bit tables

struct Level {
    const char* name;
    std::uint8_t shift;    // lowest bit of the virtual address that selects the entry
    std::uint8_t bits;     // how many select it
    bool can_be_leaf;      // by bit 7; the last level always is one
    bool has_permissions;  // PAE's page-directory-pointer entries have none
};

struct Format {
    std::uint8_t entry_bytes;
    std::uint8_t virtual_bits;
    bool sign_extended;          // canonical addresses
    std::uint64_t root_mask;     // of CR3
    std::uint64_t address_mask;  // of an entry that points at a table or a 4 KiB page
    std::span<const Level> levels;
};

constexpr auto long_mode = std::to_array<Level>({
    {"PML5", 48, 9, false, true},
    {"PML4", 39, 9, false, true},
    {"PDPT", 30, 9, true, true},
    {"PD", 21, 9, true, true},
    {"PT", 12, 9, true, true},
});
constexpr auto pae_levels = std::to_array<Level>({
    {"PDPT", 30, 2, false, false},
    {"PD", 21, 9, true, true},
    {"PT", 12, 9, true, true},
});
constexpr auto bits32_levels = std::to_array<Level>({
    {"PD", 22, 10, true, true},
    {"PT", 12, 10, true, true},
});

constexpr std::uint64_t address_bits_52 = 0x000f'ffff'ffff'f000;
constexpr Format format_levels5{8, 57, true, address_bits_52, address_bits_52, long_mode};
constexpr Format format_levels4{
    8, 48, true, address_bits_52, address_bits_52, std::span{long_mode}.subspan(1)};
constexpr Format format_pae{8, 32, false, 0xffff'ffe0, address_bits_52, pae_levels};
constexpr Format format_bits32{4, 32, false, 0xffff'f000, 0xffff'f000, bits32_levels};

const Format* format_of(PagingMode mode) {
    switch (mode) {
        case PagingMode::levels5: return &format_levels5;
        case PagingMode::levels4: return &format_levels4;
        case PagingMode::pae: return &format_pae;
        case PagingMode::bits32: return &format_bits32;
        case PagingMode::none: break;
    }
    return nullptr;
}

constexpr std::uint64_t low_bits(unsigned count) {
    return count >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
}

bool is_valid(const Format& format, std::uint64_t address) {
    const std::uint64_t high =
        address >> (format.sign_extended ? format.virtual_bits - 1 : format.virtual_bits);
    return high == 0 || (format.sign_extended && high == low_bits(64U - format.virtual_bits + 1U));
}

bool is_leaf(const Level& level, std::uint64_t entry) {
    return level.shift == 12 || (level.can_be_leaf && (entry & entry_large) != 0);
}

// Start of the page that a leaf maps. A 4 MiB page of 32-bit paging has bits 39:32 in bits 20:13 (PSE-36).
std::uint64_t leaf_base(const Format& format, const Level& level, std::uint64_t entry) {
    const std::uint64_t page_mask = ~low_bits(level.shift);
    if (format.entry_bytes == 4 && level.shift == 22) {
        return (entry & 0xffc0'0000) | ((entry >> 13 & 0xff) << 32);
    }
    return entry & format.address_mask & page_mask;
}

}  // namespace

PageTables::PageTables(PhysicalMemory& memory, PhysicalAddress root, PagingMode mode,
                       std::uint64_t encryption_mask)
    : memory_(&memory),
      root_(root),
      mode_(mode),
      encryption_mask_(encryption_mask),
      machine_addresses_(memory.has_machine_addresses()) {
    set_root(root, mode);
}

void PageTables::set_root(PhysicalAddress root, PagingMode mode) {
    const Format* format = format_of(mode);
    root_ = format == nullptr ? root : PhysicalAddress{raw(root) & format->root_mask & ~encryption_mask_};
    mode_ = mode;
    forget();
}

void PageTables::forget() {
    pages_.fill({});
    large_pages_.fill({});
    tables_.fill({});
}

void PageTables::restrict(Rights& rights, std::uint64_t entry, bool has_permissions, bool has_no_execute) {
    if (has_no_execute && (entry & entry_no_execute) != 0) rights.executable = false;
    if (!has_permissions) return;
    rights.writable = rights.writable && (entry & entry_writable) != 0;
    rights.user = rights.user && (entry & entry_user) != 0;
}

Result<Translation> PageTables::translate(VirtualAddress address) {
    const Format* format = format_of(mode_);
    if (format == nullptr) {
        if (raw(address) >> 32 != 0)
            return fail(Errc::bad_address, hex(address) + " is above 4 GiB, paging is off");
        return Translation{PhysicalAddress{raw(address)}, 4096, true, true, true};
    }
    const std::uint64_t number = raw(address) >> 12;
    const std::uint64_t large_number = raw(address) >> large_shift;
    CachedPage& page = pages_[number % pages_.size()];
    CachedPage& large = large_pages_[large_number % large_pages_.size()];
    const auto from = [&](const CachedPage& cached, unsigned shift) {
        Translation result = cached.translation;
        result.physical = result.physical + (raw(address) & low_bits(shift));
        return result;
    };
    if (page.number == number) return from(page, 12);
    if (large.number == large_number) return from(large, large_shift);
    if (!is_valid(*format, raw(address))) return fail(Errc::bad_address, hex(address) + " is not canonical");
    const Translation found = TRY(walk(address));
    const bool is_large = found.page_size >= std::uint64_t{1} << large_shift;
    CachedPage& line = is_large ? large : page;
    line.number = is_large ? large_number : number;
    line.translation = found;
    const std::uint64_t offset = raw(address) & low_bits(is_large ? large_shift : 12);
    line.translation.physical = PhysicalAddress{raw(found.physical) - offset};
    return found;
}

// Where the addresses are the machine's there are no large pages (Xen's pv/mm.c), so that all of it is one
// frame; an entry that is not present keeps what the guest has put there.
Result<std::uint64_t> PageTables::as_here(std::uint64_t entry) const {
    entry &= ~encryption_mask_;
    if (!machine_addresses_ || (entry & entry_present) == 0) return entry;
    const auto here = TRY(memory_->from_machine(PhysicalAddress{entry & address_bits_52}));
    return (entry & ~address_bits_52) | raw(here);
}

Result<std::uint64_t> PageTables::read_entry(PhysicalAddress at, std::size_t bytes) const {
    std::uint64_t entry = 0;
    CHECK_OK(memory_->read(at, std::as_writable_bytes(std::span{&entry, 1}).first(bytes)));
    return as_here(entry);
}

Result<Translation> PageTables::walk(VirtualAddress address) {
    const Format& format = *format_of(mode_);
    std::span<const Level> levels = format.levels;
    std::uint64_t table = raw(root_);
    Rights rights;
    const std::uint64_t region = raw(address) >> large_shift;
    CachedTable& cached = tables_[region % tables_.size()];
    if (cached.number == region) {
        levels = levels.last(1);
        table = cached.table;
        rights = cached.rights;
    }
    for (const Level& level : levels) {
        if (level.shift == 12 && format.entry_bytes == 8) cached = {region, table, rights};
        const std::uint64_t index = raw(address) >> level.shift & low_bits(level.bits);
        const PhysicalAddress at{table + index * format.entry_bytes};
        const auto read = read_entry(at, format.entry_bytes);
        if (!read) {
            return fail(Errc::bad_address, std::string{level.name} + " entry of " + hex(address) +
                                               " is not in RAM: " + read.error().message);
        }
        const std::uint64_t entry = *read;
        if ((entry & entry_present) == 0) {
            return fail(Errc::bad_address, hex(address) + " is not mapped: " + level.name + " entry at " +
                                               hex(at) + " is not present");
        }
        restrict(rights, entry, level.has_permissions, format.entry_bytes == 8);
        if (is_leaf(level, entry)) {
            const std::uint64_t size = std::uint64_t{1} << level.shift;
            return Translation{PhysicalAddress{leaf_base(format, level, entry) | (raw(address) & (size - 1))},
                               size, rights.writable, rights.user, rights.executable};
        }
        table = entry & format.address_mask;
    }
    return fail(Errc::bad_data, "page tables without a last level");
}

Result<PageTables::LastEntry> PageTables::last_entry(VirtualAddress address) {
    const Format* format = format_of(mode_);
    if (format == nullptr) return fail(Errc::unsupported, "no page tables: paging is off");
    if (!is_valid(*format, raw(address))) return fail(Errc::bad_address, hex(address) + " is not canonical");
    std::uint64_t table = raw(root_);
    for (const Level& level : format->levels) {
        const std::uint64_t index = raw(address) >> level.shift & low_bits(level.bits);
        const std::uint64_t entry =
            TRY(read_entry(PhysicalAddress{table + index * format->entry_bytes}, format->entry_bytes));
        if ((entry & entry_present) == 0 || is_leaf(level, entry)) {
            return LastEntry{entry, std::uint64_t{1} << level.shift};
        }
        table = entry & format->address_mask;
    }
    return fail(Errc::bad_data, "page tables without a last level");
}

// A depth-first visit of the tables that cover a window, each table read once as a whole.
struct PageTables::Visit {
    PageTables& tables;
    const Format& format;
    std::uint64_t first;  // of the window, both inclusive: it may end at the top of the address space
    std::uint64_t last;
    const std::function<bool(const Leaf&)>& visit;
    const Enter& enter;
    std::size_t tables_left;
    bool stopped = false;

    std::uint64_t canonical(std::uint64_t address) const {
        if (!format.sign_extended || (address >> (format.virtual_bits - 1) & 1) == 0) return address;
        return address | ~low_bits(format.virtual_bits);
    }

    // `base` is the first address that `table` maps.
    Result<void> table(std::span<const Level> levels, std::uint64_t table, std::uint64_t base,
                       Rights rights) {
        const Level& level = levels.front();
        if (enter && !enter({PhysicalAddress{table}, VirtualAddress{base}, std::uint64_t{1} << level.shift}))
            return {};
        if (tables_left-- == 0) return fail(Errc::bad_data, "more page tables than expected in the window");
        const std::size_t count = std::size_t{1} << level.bits;
        std::array<std::byte, 4096> bytes{};
        const auto content = MutableBytes{bytes}.first(count * format.entry_bytes);
        if (!tables.memory_->read(PhysicalAddress{table}, content)) return {};
        for (std::size_t i = 0; i < count && !stopped; ++i) {
            const std::uint64_t start = canonical(base + (static_cast<std::uint64_t>(i) << level.shift));
            if (start > last) break;
            if (start + low_bits(level.shift) < first) continue;
            std::uint64_t entry = 0;
            std::memcpy(&entry, content.data() + i * format.entry_bytes, format.entry_bytes);
            const auto here = tables.as_here(entry);
            if (!here || (*here & entry_present) == 0) continue;
            entry = *here;
            Rights below = rights;
            restrict(below, entry, level.has_permissions, format.entry_bytes == 8);
            if (is_leaf(level, entry)) {
                leaf(level, start, entry, below);
            } else {
                CHECK_OK(this->table(levels.subspan(1), entry & format.address_mask, start, below));
            }
        }
        return {};
    }

    void leaf(const Level& level, std::uint64_t start, std::uint64_t entry, Rights rights) {
        const Leaf found{VirtualAddress{start},
                         {PhysicalAddress{leaf_base(format, level, entry)}, std::uint64_t{1} << level.shift,
                          rights.writable, rights.user, rights.executable}};
        stopped = !visit(found);
    }
};

Result<void> PageTables::for_each_leaf(VirtualAddress start, std::uint64_t size,
                                       const std::function<bool(const Leaf&)>& visit, std::size_t table_limit,
                                       const Enter& enter) {
    const Format* format = format_of(mode_);
    if (format == nullptr || size == 0) return {};
    const std::uint64_t first = raw(start);
    const std::uint64_t last = first + (size - 1) < first ? ~std::uint64_t{0} : first + (size - 1);
    Visit walk{*this, *format, first, last, visit, enter, table_limit};
    return walk.table(format->levels, raw(root_), 0, {});
}

std::optional<VirtualAddress> PageTables::next_mapped(VirtualAddress address) {
    std::optional<VirtualAddress> found;
    const auto visit = [&](const Leaf& leaf) {
        found = std::max(address, leaf.start);
        return false;
    };
    // An error only cuts the search short; what was found before it counts.
    std::ignore = for_each_leaf(address, ~std::uint64_t{0} - raw(address), visit);
    return found;
}

}  // namespace exo::x86
