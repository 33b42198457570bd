#include "os-awareness/linux/orc.h"

#include <doctest/doctest.h>

#include <array>
#include <cstring>

#include "tests/support/orc_builder.h"

using namespace exo;
using namespace exo::os;
using namespace exo::test;

namespace {

constexpr VirtualAddress orc_memory{0xffff'ffff'8100'0000};
constexpr VirtualAddress orc_place = orc_memory + 0x1'0000;
constexpr std::uint64_t orc_text = raw(orc_memory);

std::vector<std::byte> orc_entries(const std::vector<OrcSource>& rows) {
    FlatSpace space{orc_memory, 0x2'0000};
    const auto location = write_orc(space, orc_place, rows);
    std::vector<std::byte> bytes(rows.size() * OrcTable::entry_bytes);
    REQUIRE(space.read(location.entries, bytes));
    return bytes;
}

OrcTable read_orc_rows(const std::vector<OrcSource>& rows, OrcLayout layout) {
    FlatSpace space{orc_memory, 0x2'0000};
    const auto table = read_orc(space, write_orc(space, orc_place, rows), layout);
    REQUIRE(table);
    return *table;
}

OrcRule only_rule(std::uint16_t flags, OrcLayout layout) {
    const auto table = read_orc_rows({{orc_text, 24, -16, flags}}, layout);
    REQUIRE(table.rows.size() == 1);
    CHECK(table.malformed == 0);
    return table.rows[0].rule;
}

bool malformed(std::uint16_t flags, OrcLayout layout) {
    const auto table = read_orc_rows({{orc_text, 24, -16, flags}}, layout);
    CHECK(table.rows.at(0).rule.type == OrcType::undefined);
    return table.malformed == 1;
}

Result<OrcTable> kernel_orc(const std::vector<OrcSource>& rows,
                            const std::optional<std::array<std::uint8_t, 20>>& header = {}) {
    FlatSpace space{orc_memory, 0x2'0000};
    SymbolTable symbols;
    add_orc_symbols(symbols, write_orc(space, orc_place, rows));
    if (header) {
        space.put(orc_memory + 0x100, *header);
        symbols.add(orc_memory + 0x100, 'r', "__start_orc_header");
    }
    symbols.finish();
    return read_kernel_orc(space, symbols);
}

// Flags as stock kernels have them, by layout; what they say is the same. 5.10, made up after
// ffb1b4a41016, 6.12, 7.2.
struct StockFlags {
    OrcLayout layout;
    std::uint16_t sp, sp_and_bp, bp, bp_indirect, regs, partial, dx, end;
};
constexpr StockFlags stock_flags[] = {
    {OrcLayout::v1, 0x0005, 0x0015, 0x0014, 0x0048, 0x0105, 0x0205, 0x0202, 0x0400},
    {OrcLayout::v2, 0x0005, 0x0015, 0x0014, 0x0048, 0x0505, 0x0605, 0x0602, 0x0800},
    {OrcLayout::v3, 0x0205, 0x0215, 0x0214, 0x0248, 0x0b05, 0x0c05, 0x0c02, 0x0100},
    {OrcLayout::v4, 0x0203, 0x0283, 0x0284, 0x024a, 0x0b03, 0x0c03, 0x0c02, 0x0100},
};

std::vector<OrcSource> stock_rows(const StockFlags& flags) {
    std::vector<OrcSource> rows;
    std::uint64_t address = orc_text;
    for (const auto f : {flags.sp, flags.sp_and_bp, flags.bp, flags.bp_indirect, flags.regs, flags.partial,
                         flags.dx, flags.end, std::uint16_t{0}}) {
        rows.push_back({address += 16, 24, -16, f});
    }
    return rows;
}

constexpr std::array<std::uint8_t, 20> header_of_6_12 = {0xfe, 0x5d, 0x32, 0xbf, 0x58, 0x1b, 0xd6,
                                                         0x3b, 0x2c, 0xa9, 0xa5, 0xc6, 0x5b, 0xa5,
                                                         0xa6, 0x25, 0xea, 0xb3, 0xfe, 0x24};

}  // namespace

TEST_CASE("orc: entries of every layout") {
    for (const auto& flags : stock_flags) {
        CAPTURE(to_string(flags.layout));
        const auto rule = [&](std::uint16_t bits) { return only_rule(bits, flags.layout); };
        const auto none = OrcBase::undefined;
        CHECK(rule(flags.sp) == OrcRule{OrcType::call, OrcBase::sp, none, 24, -16});
        CHECK(rule(flags.sp_and_bp) == OrcRule{OrcType::call, OrcBase::sp, OrcBase::previous_sp, 24, -16});
        CHECK(rule(flags.bp) == OrcRule{OrcType::call, OrcBase::bp, OrcBase::previous_sp, 24, -16});
        CHECK(rule(flags.bp_indirect) == OrcRule{OrcType::call, OrcBase::bp_indirect, OrcBase::bp, 24, -16});
        CHECK(rule(flags.regs) == OrcRule{OrcType::regs, OrcBase::sp, none, 24, -16});
        CHECK(rule(flags.partial) == OrcRule{OrcType::regs_partial, OrcBase::sp, none, 24, -16});
        CHECK(rule(flags.dx) == OrcRule{OrcType::regs_partial, OrcBase::dx, none, 24, -16});
        CHECK(rule(flags.end) == OrcRule{.type = OrcType::end_of_stack});
        CHECK(rule(0) == OrcRule{});
    }
}

TEST_CASE("orc: registers by number") {
    CHECK(only_rule(0x0203, OrcLayout::v3).sp == OrcBase::di);
    CHECK(only_rule(0x0205, OrcLayout::v4).sp == OrcBase::di);
    CHECK(only_rule(0x0201, OrcLayout::v4).sp == OrcBase::ax);
    for (const auto layout : {OrcLayout::v3, OrcLayout::v4}) {
        CHECK(only_rule(0x0206, layout).sp == OrcBase::r10);
        CHECK(only_rule(0x0207, layout).sp == OrcBase::r13);
        CHECK(only_rule(0x0209, layout).sp == OrcBase::sp_indirect);
    }
}

TEST_CASE("orc: what objtool never writes is counted, and is no rule") {
    CHECK(malformed(0x0001, OrcLayout::v1));  // the caller's sp by the caller's sp
    CHECK(malformed(0x000a, OrcLayout::v1));  // no such register
    CHECK(malformed(0x0305, OrcLayout::v1));  // no such type
    CHECK(malformed(0x0405, OrcLayout::v1));  // end, with a caller
    CHECK(malformed(0x0805, OrcLayout::v1));  // not used
    CHECK(malformed(0x0400, OrcLayout::v2));  // signal, without registers
    CHECK(malformed(0x0200, OrcLayout::v3));  // a call from nowhere
    CHECK(malformed(0x0005, OrcLayout::v3));  // no type
    CHECK(malformed(0x0505, OrcLayout::v3));
    CHECK(malformed(0x0255, OrcLayout::v3));  // bp by sp
    CHECK(malformed(0x0b15, OrcLayout::v3));  // bp by the CFA of pt_regs
    CHECK(malformed(0x020b, OrcLayout::v4));
}

TEST_CASE("orc: the layout shows in what is valid") {
    for (const auto& flags : stock_flags) {
        const auto found = detect_orc_layout(orc_entries(stock_rows(flags)));
        REQUIRE(found);
        CHECK(to_string(*found) == to_string(flags.layout));
    }
}

// A module's, or a kernel's without entry code. v1 and v2 say the same there.
TEST_CASE("orc: the layout of nothing but calls") {
    for (const auto& flags : stock_flags) {
        const auto found =
            detect_orc_layout(orc_entries({{orc_text, 8, 0, flags.sp}, {orc_text + 9, 0, 0, 0}}));
        REQUIRE(found);
        CHECK((*found == flags.layout || flags.layout == OrcLayout::v2));
    }
}

TEST_CASE("orc: a layout that is not known is not guessed") {
    CHECK(!detect_orc_layout({}));
    CHECK(!detect_orc_layout(orc_entries({{orc_text, 0, 0, 0}})));
    const auto found =
        detect_orc_layout(orc_entries({{orc_text, 8, 0, 0x0205}, {orc_text + 4, 8, 0, 0xf205}}));
    REQUIRE(!found);
    CHECK(found.error().code == Errc::bad_data);
    CHECK(found.error().message.find("1 of 2 are malformed") != std::string::npos);
}

TEST_CASE("orc: one broken entry in a hundred does not hide the layout") {
    std::vector<OrcSource> rows;
    for (std::uint64_t i = 0; i < 100; ++i) rows.push_back({orc_text + i, 8, 0, 0x0203});
    rows[50].flags = 0xffff;
    const auto table = kernel_orc(rows);
    REQUIRE(table);
    CHECK(table->layout == OrcLayout::v4);
    CHECK(table->malformed == 1);
    CHECK(table->description() == "100 rows, layout v4 (what is valid), 1 entries malformed");
}

TEST_CASE("orc: the header says which layout, unless the entries say otherwise") {
    auto table = kernel_orc(stock_rows(stock_flags[2]), header_of_6_12);
    REQUIRE(table);
    CHECK(table->description() == "9 rows, layout v3 (.orc_header)");

    table = kernel_orc(stock_rows(stock_flags[3]), header_of_6_12);
    REQUIRE(table);
    CHECK(table->description() == "9 rows, layout v4 (what is valid)");

    auto other = header_of_6_12;
    other[19] ^= 1;
    table = kernel_orc(stock_rows(stock_flags[2]), other);
    REQUIRE(table);
    CHECK(table->description() == "9 rows, layout v3 (what is valid)");
}

TEST_CASE("orc: rows are in order, one for each address") {
    const auto table = read_orc_rows({{orc_text + 32, 8, 0, 0x0205},
                                      {orc_text + 16, 16, 0, 0x0205},
                                      {orc_text + 16, 0, 0, 0},  // the end of the section before
                                      {orc_text, 24, 0, 0x0205}},
                                     OrcLayout::v3);
    REQUIRE(table.rows.size() == 3);
    for (std::size_t i = 0; i < 3; ++i) {
        CHECK(raw(table.rows[i].address) == orc_text + 16 * i);
        CHECK(table.rows[i].rule.sp_offset == 24 - 8 * static_cast<int>(i));
    }
    // Sorted by the kernel: its search finds the last of several.
    const auto sorted = read_orc_rows({{orc_text, 0, 0, 0}, {orc_text, 8, 0, 0x0205}}, OrcLayout::v3);
    REQUIRE(sorted.rows.size() == 1);
    CHECK(sorted.rows[0].rule.type == OrcType::call);
}

TEST_CASE("orc: addresses above and below the table") {
    const auto table =
        read_orc_rows({{0xffff'ffff'8000'0000, 8, 0, 5}, {0xffff'ffff'ff00'0000, 8, 0, 5}}, OrcLayout::v1);
    CHECK(hex(table.rows.at(0).address) == "0xffffffff80000000");
    CHECK(hex(table.rows.at(1).address) == "0xffffffffff000000");
}

TEST_CASE("orc: tables that are not there, or not what they should be") {
    FlatSpace space{orc_memory, 0x2'0000};
    SymbolTable none;
    none.finish();
    CHECK(read_kernel_orc(space, none).error().code == Errc::not_found);

    SymbolTable uneven;
    add_orc_symbols(uneven, write_orc(space, orc_place, {{orc_text, 8, 0, 5}}));
    uneven.add(VirtualAddress{raw(orc_place) - 4}, 'r',
               "__start_orc_unwind_ip");  // the lowest of a name counts
    uneven.finish();
    CHECK(read_kernel_orc(space, uneven).error().code == Errc::bad_data);

    CHECK(read_orc(space, {orc_place, orc_place, 0}, OrcLayout::v1).error().code == Errc::bad_data);
    CHECK(read_orc(space, {orc_place, orc_place, OrcTable::max_rows + 1}, OrcLayout::v1).error().code ==
          Errc::bad_data);
    CHECK(read_orc(space, {orc_place, orc_memory + 0x1'fffc, 1}, OrcLayout::v1).error().code ==
          Errc::bad_address);
}
