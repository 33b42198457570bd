#include "os-awareness/elf/elf_writer.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "os-awareness/elf/symbol_sections.h"
#include "tests/support/elf_reader.h"

namespace {

using exo::VirtualAddress;
using exo::os::ElfWriter;
using exo::os::ImageSection;
using exo::os::SymbolGroup;
using exo::os::SymbolTable;
using exo::os::VectorSink;
using exo::test::ElfReader;
namespace elf = exo::os::elf;

constexpr std::uint64_t linked_start = 0xffff'ffff'8100'0000;
constexpr std::uint64_t moved_by = 0x1c00'0000;

// As a kernel before 6.15 that runs `moved_by` off: per-CPU symbols are offsets.
SymbolTable kernel_symbols() {
    SymbolTable symbols;
    const auto add = [&](std::uint64_t offset, char type, std::string_view name) {
        symbols.add(VirtualAddress{linked_start + moved_by + offset}, type, name);
    };
    symbols.add(VirtualAddress{0x0}, 'A', "__per_cpu_start");
    symbols.add(VirtualAddress{0x1f000}, 'A', "runqueues");
    add(0, 'T', "_text");
    add(0x100, 't', "helper");
    add(0x180, 'W', "weak_one");
    add(0x180, 'T', "alias");
    add(0x1000, 'T', "_etext");
    add(0x2000, 'D', "_sdata");
    add(0x2010, 'd', "counter");
    add(0x3000, 'B', "__bss_start");
    add(0x3800, 'b', "last");
    add(0x4000, 'B', "_end");
    symbols.finish();
    return symbols;
}

ElfReader::NamedSymbol symbol_named(const ElfReader& reader, std::string_view name) {
    for (const auto& symbol : reader.symbols()) {
        if (symbol.name == name) return symbol;
    }
    return {"none", {}};
}

TEST_CASE("elf: the image is cut into sections where symbols say") {
    const auto symbols = kernel_symbols();
    const auto sections = exo::os::kernel_sections(symbols, moved_by, linked_start, linked_start + 0x4000);
    REQUIRE(sections.size() == 4);
    CHECK(sections[0].name == ".text");
    CHECK(sections[0].executable);
    CHECK(sections[0].end == linked_start + 0x1000);
    CHECK(sections[1].name == ".rodata");
    CHECK(sections[1].end == linked_start + 0x2000);
    CHECK_FALSE(sections[1].writable);
    CHECK(sections[2].name == ".data");
    CHECK(sections[3].name == ".bss");
    CHECK(sections[3].end == linked_start + 0x4000);
    CHECK(exo::os::section_of(sections, linked_start + 0x1000) == 1);
    CHECK(exo::os::section_of(sections, linked_start + 0x4000) == 3);
    CHECK(exo::os::section_of(sections, linked_start + 0x4001) == -1);
    CHECK(exo::os::section_of(sections, linked_start - 1) == -1);
    CHECK(exo::os::kernel_sections(symbols, moved_by, linked_start, linked_start).empty());
}

TEST_CASE("elf: symbols at link-time addresses, with sections, sizes and bindings") {
    const auto symbols = kernel_symbols();
    const SymbolGroup group{&symbols, moved_by,
                            exo::os::kernel_sections(symbols, moved_by, linked_start, linked_start + 0x4000)};
    ElfWriter writer;
    exo::os::add_symbol_sections(writer, std::span{&group, 1});
    writer.set_segment(linked_start, 0x4000);
    VectorSink sink;
    REQUIRE(writer.write(sink));
    const ElfReader reader{sink.content};

    CHECK(reader.header().type == 2);
    CHECK(reader.header().machine == 62);
    CHECK(reader.segment().address == linked_start);
    CHECK(reader.segment().memory_bytes == 0x4000);
    CHECK(reader.segment().file_bytes == 0);
    CHECK(reader.header().sections_at + reader.header().sections * 64U == sink.content.size());

    const auto text = reader.find(".text");
    CHECK(reader.section(text).type == elf::type_nobits);
    CHECK(reader.section(text).address == linked_start);
    CHECK(reader.section(text).size == 0x1000);
    CHECK(reader.section(text).flags == (elf::flag_alloc | elf::flag_execute));
    CHECK(reader.section(reader.find(".data")).flags == (elf::flag_alloc | elf::flag_write));

    const auto all = reader.symbols();
    CHECK(all.size() == 12);
    const auto first_global = reader.section(reader.find(".symtab")).info;
    for (std::size_t i = 0; i < all.size(); ++i) {
        CHECK((all[i].entry.info >> 4 == elf::bind_local) == (i + 1 < first_global));
    }
    const auto helper = symbol_named(reader, "helper").entry;
    CHECK(helper.value == linked_start + 0x100);
    CHECK(helper.size == 0x80);
    CHECK(helper.section == text);
    CHECK(helper.info == elf::symbol_function);
    // The next address, not the next symbol; never beyond the section.
    CHECK(symbol_named(reader, "weak_one").entry.size == 0x1000 - 0x180);
    CHECK(symbol_named(reader, "weak_one").entry.info == (elf::bind_weak << 4 | elf::symbol_function));
    CHECK(symbol_named(reader, "alias").entry.size == 0x1000 - 0x180);
    CHECK(symbol_named(reader, "counter").entry.size == 0x1000 - 0x10);
    CHECK(symbol_named(reader, "counter").entry.info == elf::symbol_object);
    CHECK(symbol_named(reader, "_end").entry.section == reader.find(".bss"));
    CHECK(symbol_named(reader, "_end").entry.size == 0);
    const auto runqueues = symbol_named(reader, "runqueues").entry;
    CHECK(runqueues.value == 0x1f000);
    CHECK(runqueues.section == elf::absolute);
    CHECK(symbol_named(reader, "__per_cpu_start").entry.size == 0x1f000);
}

TEST_CASE("elf: symbols of a second group keep their addresses and have sections of their own") {
    const auto symbols = kernel_symbols();
    SymbolTable module;
    module.add(VirtualAddress{0xffff'ffff'c020'0010}, 't', "module_init");
    module.finish();
    const std::vector<SymbolGroup> groups{
        {&symbols, moved_by,
         exo::os::kernel_sections(symbols, moved_by, linked_start, linked_start + 0x4000)},
        {&module, 0, {{".text.ext4", 0xffff'ffff'c020'0000, 0xffff'ffff'c020'1000, true, false}}}};
    ElfWriter writer;
    exo::os::add_symbol_sections(writer, groups);
    VectorSink sink;
    REQUIRE(writer.write(sink));
    const ElfReader reader{sink.content};
    const auto symbol = symbol_named(reader, "module_init").entry;
    CHECK(symbol.value == 0xffff'ffff'c020'0010);
    CHECK(symbol.section == reader.find(".text.ext4"));
    CHECK(symbol.size == 0xff0);
    CHECK(symbol_named(reader, "helper").entry.value == linked_start + 0x100);
}

TEST_CASE("elf: names of the guest are printable, many at one address have an end") {
    SymbolTable symbols;
    symbols.add(VirtualAddress{linked_start}, 't', "a\x07z");
    for (int i = 0; i < 200; ++i) symbols.add(VirtualAddress{linked_start + 8}, 't', "same");
    symbols.add(VirtualAddress{linked_start + 16}, 't', "end");
    symbols.finish();
    const SymbolGroup group{&symbols, 0, {{".text", linked_start, linked_start + 32, true, false}}};
    ElfWriter writer;
    exo::os::add_symbol_sections(writer, std::span{&group, 1});
    VectorSink sink;
    REQUIRE(writer.write(sink));
    const auto all = ElfReader{sink.content}.symbols();
    CHECK(all.at(0).name == "a?z");
    CHECK(all.at(1).entry.size == 0);    // 199 others before the next address
    CHECK(all.at(200).entry.size == 8);  // none
    CHECK(all.at(201).entry.size == 16);
}

TEST_CASE("elf: constants do not reach over what has no symbol, variables do") {
    SymbolTable symbols;
    symbols.add(VirtualAddress{linked_start}, 'r', "constant");
    symbols.add(VirtualAddress{linked_start + 0x10'0000}, 'b', "buffer");
    symbols.add(VirtualAddress{linked_start + 0x1f'0000}, 'b', "other");
    symbols.finish();
    const SymbolGroup group{&symbols,
                            0,
                            {{".rodata", linked_start, linked_start + 0x10'0000, false, false},
                             {".bss", linked_start + 0x10'0000, linked_start + 0x20'0000, false, true}}};
    ElfWriter writer;
    exo::os::add_symbol_sections(writer, std::span{&group, 1});
    VectorSink sink;
    REQUIRE(writer.write(sink));
    const ElfReader reader{sink.content};
    CHECK(symbol_named(reader, "constant").entry.size == 0x1'0000);
    CHECK(symbol_named(reader, "buffer").entry.size == 0xf'0000);
    CHECK(symbol_named(reader, "other").entry.size == 0x1'0000);
}

TEST_CASE("elf: content is aligned, and of the size that was said") {
    const std::vector<std::byte> three(3, std::byte{7});
    ElfWriter writer;
    writer.add({.name = "odd", .type = elf::type_progbits, .content = exo::os::content_of(three)});
    writer.add(
        {.name = "even", .type = elf::type_progbits, .align = 64, .content = exo::os::content_of(three)});
    VectorSink sink;
    REQUIRE(writer.write(sink));
    const ElfReader reader{sink.content};
    CHECK(reader.section(2).offset % 64 == 0);
    CHECK(std::ranges::equal(reader.content("odd"), three));
    CHECK(std::ranges::equal(reader.content("even"), three));

    writer.add({.name = "liar", .type = elf::type_progbits, .content = {4, [&](exo::os::ByteSink& to) {
                                                                            return to.write(three);
                                                                        }}});
    VectorSink ignored;
    CHECK(writer.write(ignored).error().code == exo::Errc::bad_data);
}

}  // namespace
