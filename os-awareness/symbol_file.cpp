#include "os-awareness/symbol_file.h"

#include <algorithm>
#include <cstring>

#include "os-awareness/dwarf/abbreviations.h"
#include "os-awareness/dwarf/data_units.h"
#include "os-awareness/dwarf/type_writer.h"
#include "os-awareness/elf/format.h"

namespace exo::os {
namespace {

constexpr std::string_view gnu_owner = "GNU";
constexpr std::size_t max_build_id = 64;

struct DebugSections {
    ByteBuffer abbreviations;
    ByteBuffer info;
    ByteBuffer location_lists;
    std::vector<std::byte> strings;
};

std::string left_out(std::size_t count, std::string_view what, std::string_view why) {
    return std::to_string(count) + " " + std::string{what} + " of BTF left out: " + std::string{why};
}

Result<DebugSections> debug_sections(const SymbolFileInput& input, SymbolFileSummary& summary) {
    dwarf::TypeWriter types{*input.btf, input.name, input.producer};
    DebugSections out;
    types.write_types();
    const auto functions = dwarf::find_functions(*input.btf, input.image);
    dwarf::write_functions(types, functions.sites, input.image.slide, input.read_code, out.location_lists);
    const auto variables = dwarf::find_variables(types, input.image);
    dwarf::write_variables(types, variables.sites);
    CHECK_OK(types.finish());
    out.abbreviations = dwarf::abbreviations();
    out.strings = types.strings();
    out.info = std::move(types.info());

    summary.functions = functions.sites.size();
    summary.variables = variables.sites.size();
    if (!input.btf->incomplete().empty()) summary.problems.push_back(input.btf->incomplete());
    if (functions.unplaced != 0) {
        summary.problems.push_back(
            left_out(functions.unplaced, "functions", "no symbol of that name in code, or several"));
    }
    if (functions.aliases != 0) {
        summary.problems.push_back(left_out(functions.aliases, "functions", "other names of an address"));
    }
    if (variables.unplaced != 0) {
        summary.problems.push_back(
            left_out(variables.unplaced, "variables", "no address, no type, or several of that name"));
    }
    return out;
}

ByteBuffer build_id_note(ConstBytes id) {
    ByteBuffer note;
    note.u32(gnu_owner.size() + 1);
    note.u32(id.size());
    note.u32(elf::note_gnu_build_id);
    note.text(gnu_owner);
    for (const auto byte : id) note.put(byte);
    while (note.size() % 4 != 0) note.u8(0);
    return note;
}

void add_debug_section(ElfWriter& elf, std::string name, ConstBytes bytes, std::uint64_t flags = 0) {
    if (bytes.empty()) return;
    elf.add({.name = std::move(name),
             .type = elf::type_progbits,
             .flags = flags,
             .entry_size = flags != 0 ? 1U : 0U,
             .content = content_of(bytes)});
}

// What moves with the image: all that has its slide.
void set_segment(ElfWriter& elf, std::uint64_t slide, std::span<const SymbolGroup> groups) {
    std::uint64_t start = UINT64_MAX;
    std::uint64_t end = 0;
    for (const auto& group : groups) {
        if (group.slide != slide || group.sections.empty()) continue;
        start = std::min(start, group.sections.front().start);
        end = std::max(end, group.sections.back().end);
    }
    if (start < end) elf.set_segment(start, end - start);
}

}  // namespace

Result<SymbolFileSummary> write_symbol_file(const SymbolFileInput& input, ByteSink& sink) {
    SymbolFileSummary summary;
    std::vector<SymbolGroup> groups{input.image};
    groups.insert(groups.end(), input.others.begin(), input.others.end());
    for (const auto& group : groups) summary.symbols += group.symbols->by_address().size();

    ElfWriter elf;
    set_segment(elf, input.image.slide, groups);
    add_symbol_sections(elf, groups);
    ByteBuffer note;
    if (!input.build_id.empty() && input.build_id.size() <= max_build_id) {
        note = build_id_note(input.build_id);
        elf.add({.name = ".note.gnu.build-id",
                 .type = elf::type_note,
                 .align = 4,
                 .content = content_of(note.bytes())});
    }
    DebugSections debug;
    if (input.btf != nullptr) {
        auto made = debug_sections(input, summary);
        if (made) {
            debug = std::move(*made);
        } else {
            summary.functions = summary.variables = 0;
            summary.problems.push_back("no types, no functions: " + made.error().message);
        }
    }
    add_debug_section(elf, ".debug_abbrev", debug.abbreviations.bytes());
    add_debug_section(elf, ".debug_info", debug.info.bytes());
    add_debug_section(elf, ".debug_loclists", debug.location_lists.bytes());
    add_debug_section(elf, ".debug_str", debug.strings, elf::flag_merge | elf::flag_strings);
    add_debug_section(elf, ".debug_frame", input.frames);
    CHECK_OK(elf.write(sink));
    return summary;
}

std::span<const std::byte> find_build_id(ConstBytes notes) {
    while (notes.size() >= sizeof(elf::NoteHeader)) {
        elf::NoteHeader header{};
        std::memcpy(&header, notes.data(), sizeof header);
        const auto padded = [](std::uint64_t size) { return (size + 3) / 4 * 4; };
        const auto name_end = sizeof header + padded(header.name_bytes);
        if (name_end + header.description_bytes > notes.size()) return {};
        const auto name = notes.subspan(sizeof header, header.name_bytes);
        const bool is_gnu = name.size() == gnu_owner.size() + 1 &&
                            std::memcmp(name.data(), gnu_owner.data(), name.size()) == 0;
        if (is_gnu && header.type == elf::note_gnu_build_id) {
            if (header.description_bytes > max_build_id) return {};
            return notes.subspan(name_end, header.description_bytes);
        }
        notes =
            notes.subspan(std::min<std::uint64_t>(name_end + padded(header.description_bytes), notes.size()));
    }
    return {};
}

}  // namespace exo::os
