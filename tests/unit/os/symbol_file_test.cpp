#include "os-awareness/symbol_file.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "os-awareness/dwarf/data_units.h"
#include "os-awareness/dwarf/entry_code.h"
#include "os-awareness/elf/byte_buffer.h"
#include "tests/support/btf_writer.h"
#include "tests/support/dwarf_reader.h"
#include "tests/support/elf_reader.h"

namespace {

using exo::VirtualAddress;
using exo::os::Btf;
using exo::os::BtfKind;
using exo::os::SymbolFileInput;
using exo::os::SymbolFileSummary;
using exo::os::SymbolTable;
using exo::os::VectorSink;
using exo::os::dwarf::Attribute;
using exo::os::dwarf::Tag;
using exo::test::BtfWriter;
using exo::test::DwarfEntry;
using exo::test::DwarfReader;
using exo::test::ElfReader;

constexpr std::uint64_t image_start = 0xffff'ffff'8100'0000;
constexpr std::uint64_t image_bytes = 0x3000;
constexpr std::uint64_t image_slide = 0x200'0000;

std::vector<std::byte> byte_list(std::initializer_list<int> values) {
    std::vector<std::byte> bytes;
    for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
    return bytes;
}

SymbolTable small_kernel() {
    SymbolTable symbols;
    const auto add = [&](std::uint64_t offset, char type, std::string_view name) {
        symbols.add(VirtualAddress{image_start + image_slide + offset}, type, name);
    };
    symbols.add(VirtualAddress{0}, 'A', "__per_cpu_start");
    symbols.add(VirtualAddress{0x80}, 'A', "counter");
    symbols.add(VirtualAddress{0x90}, 'a', "twice_per_cpu");
    symbols.add(VirtualAddress{0xa0}, 'a', "twice_per_cpu");
    add(0, 'T', "_text");
    add(0x10, 'T', "open_file");
    add(0x10, 'T', "open_file_alias");
    add(0x40, 't', "close_file");
    add(0x60, 't', "twice");
    add(0x70, 't', "twice");
    add(0x1000, 'T', "_etext");
    add(0x2000, 'D', "_sdata");
    add(0x2100, 'T', "init_task");  // as in 7.2, whose .data has the flag of code
    add(0x2200, 'D', "linux_banner");
    symbols.finish();
    return symbols;
}

// int open_file(char *name, u128 wide, struct large by_value, int flags, ...); void close_file(int fd)
Btf small_btf() {
    BtfWriter w;
    const auto integer = w.integer("int", 4, true);
    const auto character = w.integer("char", 1, true);
    const auto text = w.pointer(character);
    const auto wide = w.structure("wide", 16, {{"low", integer, 0}});
    const auto large = w.structure("large", 24, {{"low", integer, 0}});
    w.structure("task_struct", 64, {{"pid", integer, 8}});
    const auto open = w.raw("", 13U << 24 | 5, integer,
                            {w.text("name"), text, w.text("wide"), wide, w.text("by_value"), large,
                             w.text("flags"), integer, 0, 0});
    const auto close = w.raw("", 13U << 24 | 1, 0, {w.text("fd"), integer});
    for (const auto* name : {"open_file", "open_file_alias"}) w.reference(BtfKind::function, name, open);
    for (const auto* name : {"close_file", "twice", "absent"}) w.reference(BtfKind::function, name, close);
    const auto counter = w.variable("counter", integer);
    const auto twice = w.variable("twice_per_cpu", integer);
    w.data_section(".data..percpu", {{counter, 0x80, 4}, {twice, 0x90, 4}});
    return std::move(*Btf::parse(w.blob()));
}

struct MadeFile {
    MadeFile(const SymbolFileInput& input) {
        VectorSink sink;
        auto made = exo::os::write_symbol_file(input, sink);
        REQUIRE(made);
        summary = std::move(*made);
        content = std::move(sink.content);
        elf.emplace(content);
        dwarf.emplace(elf->content(".debug_abbrev"), elf->content(".debug_info"), elf->content(".debug_str"));
    }
    const DwarfEntry& get(Tag tag, std::string_view name) const {
        REQUIRE(dwarf->problem() == "");
        const auto* found = dwarf->find(tag, name);
        REQUIRE_MESSAGE(found != nullptr, std::string{name});
        return *found;
    }
    // The list of a location, without its ends: start, end, expression.
    std::vector<int> list(const DwarfEntry& entry) const {
        auto rest = elf->content(".debug_loclists").subspan(entry.number(Attribute::location));
        std::vector<int> values;
        for (std::size_t i = 0; i < 4U + static_cast<std::size_t>(rest[3]); ++i) {
            values.push_back(static_cast<int>(rest[i]));
        }
        CHECK(rest[values.size()] == std::byte{0});
        return values;
    }

    SymbolFileSummary summary;
    std::vector<std::byte> content;
    std::optional<ElfReader> elf;
    std::optional<DwarfReader> dwarf;
};

SymbolFileInput input_of(const SymbolTable& symbols, const Btf& btf) {
    SymbolFileInput input;
    input.image = {&symbols, image_slide,
                   exo::os::kernel_sections(symbols, image_slide, image_start, image_start + image_bytes)};
    input.btf = &btf;
    return input;
}

TEST_CASE("symbol file: functions with their types, once an address, at link-time addresses") {
    const auto symbols = small_kernel();
    const auto btf = small_btf();
    const MadeFile file{input_of(symbols, btf)};
    CHECK(file.summary.symbols == 14);
    CHECK(file.summary.functions == 2);

    const auto& open = file.get(Tag::subprogram, "open_file");
    CHECK(open.number(Attribute::low_pc) == image_start + 0x10);
    CHECK(open.number(Attribute::high_pc) == 0x30);
    CHECK(open.has(Attribute::external));
    CHECK(file.dwarf->spell(&open) == "int (char *, struct wide, struct large, int, ...)");
    const auto& close = file.get(Tag::subprogram, "close_file");
    CHECK_FALSE(close.has(Attribute::external));
    CHECK(close.number(Attribute::high_pc) == 0x20);
    CHECK(file.dwarf->spell(&close) == "void (int)");
    CHECK(file.dwarf->find(Tag::subprogram, "open_file_alias") == nullptr);
    CHECK(file.dwarf->find(Tag::subprogram, "twice") == nullptr);

    const auto* unit = &file.dwarf->entries().at(0);
    for (const auto& entry : file.dwarf->entries()) {
        if (entry.depth == 0 && entry.unit == open.unit) unit = &entry;
    }
    CHECK(unit->number(Attribute::low_pc) == image_start + 0x10);
    CHECK(unit->number(Attribute::high_pc) == 0x50);

    CHECK(file.summary.problems ==
          std::vector<std::string>{
              "2 functions of BTF left out: no symbol of that name in code, or several",
              "1 functions of BTF left out: other names of an address",
          });
}

TEST_CASE("symbol file: arguments are in registers at the entry of a function") {
    const auto symbols = small_kernel();
    const auto btf = small_btf();
    auto input = input_of(symbols, btf);
    const auto code = byte_list({0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x90});  // endbr64; push %rbp; nop
    input.read_code = [&](VirtualAddress at, exo::MutableBytes out) -> std::size_t {
        if (raw(at) != image_start + image_slide + 0x10) return 0;
        std::ranges::copy(code, out.begin());
        return code.size();
    };
    const MadeFile file{input};
    const auto parameters = file.dwarf->children(file.get(Tag::subprogram, "open_file"));
    REQUIRE(parameters.size() == 5);
    // From the beginning of the unit, which is this function, over 5 bytes and the next instruction's first.
    CHECK(file.list(*parameters[0]) == std::vector<int>{4, 0, 6, 3, 0x55, 0x93, 8});  // rdi
    CHECK(file.list(*parameters[1]) ==
          std::vector<int>{4, 0, 6, 6, 0x54, 0x93, 8, 0x51, 0x93, 8});  // rsi, rdx
    CHECK_FALSE(parameters[2]->has(Attribute::location));               // 24 bytes are in memory
    CHECK(file.list(*parameters[3]) == std::vector<int>{4, 0, 6, 3, 0x52, 0x93, 8});  // rcx
    CHECK(parameters[4]->tag == Tag::unspecified_parameters);
    const auto* fd = file.dwarf->children(file.get(Tag::subprogram, "close_file")).at(0);
    CHECK(file.list(*fd) == std::vector<int>{4, 0x30, 0x31, 3, 0x55, 0x93, 8});
    const auto lists = file.elf->content(".debug_loclists");
    CHECK(static_cast<std::size_t>(lists[0]) == lists.size() - 4);
}

TEST_CASE("symbol file: variables of BTF and well-known ones") {
    const auto symbols = small_kernel();
    const auto btf = small_btf();
    const MadeFile file{input_of(symbols, btf)};
    CHECK(file.summary.variables == 4);
    const auto& task = file.get(Tag::variable, "init_task");
    CHECK(file.dwarf->spell(file.dwarf->type_of(task)) == "struct task_struct");
    // DW_OP_addr
    CHECK(task.blocks.at(Attribute::location) ==
          std::vector<std::uint8_t>{0x03, 0x00, 0x21, 0x00, 0x81, 0xff, 0xff, 0xff, 0xff});
    CHECK(file.dwarf->spell(file.dwarf->type_of(file.get(Tag::variable, "linux_banner"))) == "const char []");
    // DW_OP_nop, DW_OP_const8u: does not move with the kernel
    CHECK(file.get(Tag::variable, "counter").blocks.at(Attribute::location) ==
          std::vector<std::uint8_t>{0x96, 0x0e, 0x80, 0, 0, 0, 0, 0, 0, 0});
    // Its name says nothing, its place in the section does.
    CHECK(file.get(Tag::variable, "twice_per_cpu").blocks.at(Attribute::location).at(2) == 0x90);
}

TEST_CASE("symbol file: what is code is told by the section, not by the letter alone") {
    const auto symbols = small_kernel();
    BtfWriter w;
    const auto prototype = w.raw("", 13U << 24, 0);
    w.reference(BtfKind::function, "init_task", prototype);
    w.reference(BtfKind::function, "close_file", prototype);
    const auto btf = std::move(*Btf::parse(w.blob()));
    const MadeFile file{input_of(symbols, btf)};
    CHECK(file.dwarf->find(Tag::subprogram, "init_task") == nullptr);
    CHECK(file.dwarf->find(Tag::subprogram, "close_file") != nullptr);
    for (const auto& symbol : file.elf->symbols()) {
        if (symbol.name == "init_task") CHECK((symbol.entry.info & 0xf) == exo::os::elf::symbol_object);
        if (symbol.name == "close_file") CHECK((symbol.entry.info & 0xf) == exo::os::elf::symbol_function);
    }
}

TEST_CASE("symbol file: the build id as a note, frames as they were given") {
    const auto symbols = small_kernel();
    const auto btf = small_btf();
    auto input = input_of(symbols, btf);
    const auto id = byte_list({1, 2, 3, 4, 5});
    const auto frames = byte_list({9, 8, 7});
    input.build_id = id;
    input.frames = frames;
    const MadeFile file{input};
    CHECK(std::ranges::equal(file.elf->content(".debug_frame"), frames));
    CHECK(std::ranges::equal(exo::os::find_build_id(file.elf->content(".note.gnu.build-id")), id));
}

TEST_CASE("symbol file: the build id is found among other notes, and not in broken ones") {
    exo::os::ByteBuffer notes;
    for (const auto& [name, type] : {std::pair{"Xen", 3U}, std::pair{"GNU", 1U}, std::pair{"GNU", 3U}}) {
        notes.u32(4);
        notes.u32(3);
        notes.u32(type);
        notes.text(name);
        notes.u32(0x00030201 + type);
    }
    const auto id = exo::os::find_build_id(notes.bytes());
    CHECK(std::ranges::equal(id, byte_list({4, 2, 3})));
    CHECK(exo::os::find_build_id(notes.bytes().first(59)).size() == 3);
    CHECK(exo::os::find_build_id(notes.bytes().first(58)).empty());
    CHECK(exo::os::find_build_id({}).empty());
}

TEST_CASE("symbol file: without BTF there are symbols") {
    const auto symbols = small_kernel();
    const auto btf = small_btf();
    auto input = input_of(symbols, btf);
    input.btf = nullptr;
    VectorSink sink;
    const auto made = exo::os::write_symbol_file(input, sink);
    REQUIRE(made);
    CHECK(made->functions == 0);
    const ElfReader reader{sink.content};
    CHECK(reader.symbols().size() == 14);
    CHECK(reader.find(".debug_info") == 0);
}

class FullSink final : public exo::os::ByteSink {
public:
    exo::Result<void> write(exo::ConstBytes /*bytes*/) override {
        return exo::fail(exo::Errc::backend, "no space left");
    }
};

TEST_CASE("symbol file: a sink's error is the error") {
    const auto symbols = small_kernel();
    const auto btf = small_btf();
    FullSink sink;
    const auto made = exo::os::write_symbol_file(input_of(symbols, btf), sink);
    REQUIRE_FALSE(made);
    CHECK(made.error().message == "no space left");
}

TEST_CASE("entry code: instructions that leave arguments alone") {
    using exo::os::dwarf::entry_bytes;
    CHECK(entry_bytes({}) == 1);
    CHECK(entry_bytes(byte_list({0xe8, 0, 0, 0, 0})) == 1);  // a call of anything
    CHECK(entry_bytes(byte_list({0x0f, 0x1f, 0x44, 0, 0, 0x41, 0x57, 0x48, 0x89, 0xe5, 0x31, 0xff})) == 11);
    CHECK(entry_bytes(byte_list({0x48, 0x83, 0xec, 0x18, 0x48, 0x89, 0xfb})) == 5);
    CHECK(entry_bytes(byte_list({0x48, 0x81, 0xec, 0, 1})) == 1);  // cut off
}

TEST_CASE("known globals: no symbol twice, each with its source") {
    std::vector<std::string_view> names;
    for (const auto& known : exo::os::dwarf::known_globals()) {
        names.push_back(known.symbol);
        CHECK(known.source.find('/') != std::string_view::npos);
    }
    std::ranges::sort(names);
    CHECK(std::ranges::adjacent_find(names) == names.end());
}

}  // namespace
