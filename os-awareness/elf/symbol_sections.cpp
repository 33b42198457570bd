#include "os-awareness/elf/symbol_sections.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "os-awareness/elf/byte_buffer.h"
#include "os-awareness/elf/format.h"

namespace exo::os {
namespace {

constexpr std::size_t piece_bytes = std::size_t{64} << 10;
constexpr std::size_t max_aliases = 64;
// Constants without a symbol (strings, mostly) must not all belong to the symbol before them.
constexpr std::uint64_t max_constant_bytes = std::uint64_t{64} << 10;

struct SectionStart {
    std::string_view section;
    std::string_view symbol;  // at its first byte
    bool executable;
    bool writable;
};
constexpr auto section_starts = std::to_array<SectionStart>({
    {".rodata", "_etext", false, false},
    {".data", "_sdata", false, true},
    {".init.text", "_sinittext", true, false},
    {".init.data", "_einittext", false, true},
    {".bss", "__bss_start", false, true},
});

// nm's letters (binutils, nm(1)). A lower case letter is a local symbol, but for w and v, which are weak.
struct Letter {
    char lower;
    std::uint8_t type;
};
constexpr auto nm_letters = std::to_array<Letter>({
    {'t', elf::symbol_function},
    {'w', elf::symbol_function},
    {'i', elf::symbol_function},
    {'d', elf::symbol_object},
    {'b', elf::symbol_object},
    {'r', elf::symbol_object},
    {'v', elf::symbol_object},
    {'a', elf::symbol_object},
});

std::uint8_t binding_of(char letter) {
    if (letter == 'w' || letter == 'W' || letter == 'v' || letter == 'V') return elf::bind_weak;
    return letter >= 'A' && letter <= 'Z' ? elf::bind_global : elf::bind_local;
}

// By the letter, where the section does not say otherwise: .data of a 7.2 has the flag of code, so that all
// its variables are t.
std::uint8_t type_of(char letter, bool may_be_code) {
    const auto lower = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
    const auto* row = std::ranges::find(nm_letters, lower, &Letter::lower);
    const auto type = row == nm_letters.end() ? elf::symbol_none : row->type;
    return type == elf::symbol_function && !may_be_code ? elf::symbol_object : type;
}

struct PlacedGroup {
    const SymbolGroup* group;
    std::uint32_t first_section;  // index of sections[0] in the file
};

struct Placed {
    std::uint64_t value = 0;
    std::ptrdiff_t section = -1;
};

Placed place(const SymbolGroup& group, const Symbol& symbol) {
    const auto linked = raw(symbol.address) - group.slide;
    const auto section = section_of(group.sections, linked);
    return section < 0 ? Placed{raw(symbol.address), -1} : Placed{linked, section};
}

// kallsyms has no sizes: a symbol reaches to the next address that has one, or to the end of its section.
std::uint64_t size_of(const SymbolGroup& group, const Placed& symbol, std::span<const Symbol> after) {
    // A guest can give one address to all its symbols.
    const auto near = after.first(std::min(after.size(), max_aliases));
    const auto next = std::ranges::find_if(
        near, [&](const Symbol& other) { return place(group, other).value != symbol.value; });
    if (symbol.section < 0) {
        const bool known = next != near.end() && place(group, *next).section < 0;
        return known ? raw(next->address) - symbol.value : 0;
    }
    if (next == near.end() && near.size() < after.size()) return 0;
    const auto& section = group.sections[static_cast<std::size_t>(symbol.section)];
    auto end = section.end;
    if (next != near.end()) end = std::min(end, raw(next->address) - group.slide);
    const auto size = end - symbol.value;
    return section.executable || section.writable ? size : std::min(size, max_constant_bytes);
}

// In the order of the file: gABI wants local symbols first.
template <class Visit>
Result<void> for_each_symbol(std::span<const PlacedGroup> groups, Visit visit) {
    for (const bool local : {true, false}) {
        for (const auto& placed : groups) {
            const auto symbols = placed.group->symbols->by_address();
            for (std::size_t i = 0; i < symbols.size(); ++i) {
                if ((binding_of(symbols[i].type) == elf::bind_local) == local)
                    CHECK_OK(visit(placed, symbols, i));
            }
        }
    }
    return {};
}

elf::SymbolEntry entry_of(const PlacedGroup& placed, std::span<const Symbol> symbols, std::size_t index) {
    const auto& group = *placed.group;
    const auto where = place(group, symbols[index]);
    const auto letter = symbols[index].type;
    elf::SymbolEntry entry{};
    const bool may_be_code =
        where.section < 0 || group.sections[static_cast<std::size_t>(where.section)].executable;
    entry.info = static_cast<std::uint8_t>(binding_of(letter) << 4U | type_of(letter, may_be_code));
    entry.section =
        where.section < 0 ? elf::absolute : static_cast<std::uint16_t>(placed.first_section + where.section);
    entry.value = where.value;
    entry.size = size_of(group, where, symbols.subspan(index + 1));
    return entry;
}

Result<void> write_entries(std::span<const PlacedGroup> groups, ByteSink& sink) {
    ByteBuffer piece;
    piece.reserve(piece_bytes + sizeof(elf::SymbolEntry));
    piece.put(elf::SymbolEntry{});
    std::uint32_t name = 1;
    CHECK_OK(for_each_symbol(
        groups,
        [&](const PlacedGroup& placed, std::span<const Symbol> symbols, std::size_t index) -> Result<void> {
            auto entry = entry_of(placed, symbols, index);
            entry.name = name;
            name += static_cast<std::uint32_t>(placed.group->symbols->name(symbols[index]).size() + 1);
            piece.put(entry);
            if (piece.size() < piece_bytes) return {};
            CHECK_OK(sink.write(piece.bytes()));
            piece.clear();
            return {};
        }));
    return sink.write(piece.bytes());
}

Result<void> write_names(std::span<const PlacedGroup> groups, ByteSink& sink) {
    std::string piece(1, '\0');
    const auto flush = [&] { return sink.write(std::as_bytes(std::span{piece})); };
    CHECK_OK(for_each_symbol(
        groups,
        [&](const PlacedGroup& placed, std::span<const Symbol> symbols, std::size_t index) -> Result<void> {
            const auto name = placed.group->symbols->name(symbols[index]);
            std::ranges::transform(name, std::back_inserter(piece), printable);
            piece.push_back('\0');
            if (piece.size() < piece_bytes) return {};
            CHECK_OK(flush());
            piece.clear();
            return {};
        }));
    return flush();
}

}  // namespace

char printable(char c) { return c >= ' ' && c <= '~' ? c : '?'; }

std::vector<ImageSection> kernel_sections(const SymbolTable& symbols, std::uint64_t slide,
                                          std::uint64_t start, std::uint64_t end) {
    if (end <= start) return {};
    std::vector<ImageSection> sections{{".text", start, end, true, false}};
    for (const auto& row : section_starts) {
        const auto symbol = symbols.find(row.symbol);
        if (!symbol) continue;
        const auto at = raw(*symbol) - slide;
        if (at <= sections.back().start || at >= end) continue;
        sections.back().end = at;
        sections.push_back({std::string{row.section}, at, end, row.executable, row.writable});
    }
    return sections;
}

std::ptrdiff_t section_of(std::span<const ImageSection> sections, std::uint64_t address) {
    const auto above = std::ranges::upper_bound(sections, address, {}, &ImageSection::start);
    if (above == sections.begin()) return -1;
    const auto& candidate = *std::prev(above);
    const bool last = above == sections.end();
    if (address < candidate.end || (last && address == candidate.end)) return above - sections.begin() - 1;
    return -1;
}

void add_symbol_sections(ElfWriter& elf, std::span<const SymbolGroup> groups) {
    std::vector<PlacedGroup> placed;
    std::uint64_t count = 1;
    std::uint64_t locals = 1;
    std::uint64_t name_bytes = 1;
    for (const auto& group : groups) {
        placed.push_back({&group, elf.next_index()});
        for (const auto& section : group.sections) {
            const std::uint64_t flags = elf::flag_alloc | (section.executable ? elf::flag_execute : 0) |
                                        (section.writable ? elf::flag_write : 0);
            elf.add({.name = section.name,
                     .type = elf::type_nobits,
                     .flags = flags,
                     .address = section.start,
                     .align = 1,
                     .content = {section.end - section.start, {}}});
        }
        for (const auto& symbol : group.symbols->by_address()) {
            ++count;
            locals += binding_of(symbol.type) == elf::bind_local ? 1 : 0;
            name_bytes += group.symbols->name(symbol).size() + 1;
        }
    }
    elf.add({.name = ".symtab",
             .type = elf::type_symtab,
             .align = 8,
             .link = elf.next_index() + 1,
             .info = static_cast<std::uint32_t>(locals),
             .entry_size = sizeof(elf::SymbolEntry),
             .content = {count * sizeof(elf::SymbolEntry),
                         [placed](ByteSink& sink) { return write_entries(placed, sink); }}});
    elf.add({.name = ".strtab", .type = elf::type_strtab, .content = {name_bytes, [placed](ByteSink& sink) {
                                                                          return write_names(placed, sink);
                                                                      }}});
}

}  // namespace exo::os
