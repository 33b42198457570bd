// ORC in any bytes: what is read is in order, and what is written of it is call frame information that says
// the same of every row.
#include <algorithm>
#include <utility>

#include "fuzz.h"
#include "os-awareness/linux/orc_frames.h"
#include "tests/support/cfi_reader.h"
#include "tests/support/orc_builder.h"

namespace {

using exo::VirtualAddress;
using exo::os::cfi::Register;

constexpr VirtualAddress fuzz_text{0xffff'ffff'8100'0000};
constexpr VirtualAddress fuzz_tables{0xffff'ffff'8200'0000};

void check_rows(const exo::os::OrcTable& table, const exo::test::CfiReader& reader, std::uint64_t end) {
    const auto memory = [](std::uint64_t address) { return std::optional{address ^ 0x5555}; };
    for (const auto& row : table.rows) {
        if (raw(row.address) >= end) continue;
        exo::test::CfiFrame frame;
        for (std::uint64_t i = 0; i <= 16; ++i) frame.registers[static_cast<Register>(i)] = 0x1000 * (i + 1);
        frame.registers[Register::return_address] = raw(row.address);
        exo::test::CfiFrame caller;
        const auto outcome = reader.step(frame, memory, caller);
        using Outcome = exo::test::CfiReader::Outcome;
        exo::fuzz::require(outcome == (row.rule.has_caller() ? Outcome::caller : Outcome::outermost));
        if (row.rule.type == exo::os::OrcType::call && row.rule.sp == exo::os::OrcBase::sp) {
            const auto offset = static_cast<std::uint64_t>(std::int64_t{row.rule.sp_offset});
            exo::fuzz::require(frame.cfa == 0x8000 + offset && caller.pc() == ((frame.cfa - 8) ^ 0x5555));
        }
    }
}

}  // namespace

// The layout, then for each row the distance to the one before, an entry, and whether a function begins
// there.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    exo::fuzz::Input input{data, size};
    const auto layout = static_cast<exo::os::OrcLayout>(input.byte() & 3);
    std::vector<exo::test::OrcSource> rows;
    exo::os::SymbolTable symbols;
    std::uint64_t address = raw(fuzz_text);
    while (!input.rest().empty() && rows.size() < 256) {
        const auto distance = input.byte();
        address += distance;
        const auto sp_offset = static_cast<std::int16_t>(input.number(2));
        const auto bp_offset = static_cast<std::int16_t>(input.number(2));
        rows.push_back({distance == 0xff ? address - 0x200 : address, sp_offset, bp_offset,
                        static_cast<std::uint16_t>(input.number(2))});
        if (distance % 2 == 0) symbols.add(VirtualAddress{address}, 't', "function");
    }
    if (rows.empty()) return 0;
    exo::test::FlatSpace space{fuzz_tables, 1 << 13};
    const auto location = write_orc(space, fuzz_tables, rows);
    symbols.finish();
    const auto table = exo::os::read_orc(space, location, layout);
    exo::fuzz::require(table.has_value());
    exo::fuzz::require(std::ranges::adjacent_find(table->rows, std::ranges::greater_equal{},
                                                  &exo::os::OrcRow::address) == table->rows.end());

    const std::uint64_t end = address + 16;
    exo::os::KernelFrames frames{0, VirtualAddress{raw(fuzz_text) - 0x1000}};
    exo::fuzz::require(frames.add(*table, symbols, VirtualAddress{end}).has_value());
    const auto reader = exo::test::CfiReader::parse(frames.take());
    exo::fuzz::require(reader && reader->well_formed());
    check_rows(*table, *reader, end);

    std::vector<std::byte> entries(rows.size() * exo::os::OrcTable::entry_bytes);
    exo::fuzz::require(space.read(location.entries, entries).has_value());
    (void)exo::os::detect_orc_layout(entries);
    return 0;
}
