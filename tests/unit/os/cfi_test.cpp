#include "os-awareness/dwarf/cfi.h"

#include <doctest/doctest.h>

#include <limits>
#include <string>

#include "tests/support/cfi_reader.h"

using namespace exo;
using namespace exo::os::cfi;

namespace {

// "0c 07 08"
std::string as_hex(exo::ConstBytes bytes) {
    std::string text;
    for (const auto byte : bytes) {
        if (!text.empty()) text += ' ';
        text += hex(0x100 | std::to_integer<unsigned>(byte)).substr(3);
    }
    return text;
}

template <class Write>
std::string written(Write write) {
    Instructions instructions;
    write(instructions);
    return as_hex(instructions.bytes());
}

}  // namespace

// The examples of DWARF 5, tables C.1 and C.2.
TEST_CASE("cfi: LEB128") {
    const auto uleb = [](std::uint64_t value) {
        exo::os::ByteBuffer out;
        out.uleb(value);
        return as_hex(out.bytes());
    };
    CHECK(uleb(2) == "02");
    CHECK(uleb(127) == "7f");
    CHECK(uleb(128) == "80 01");
    CHECK(uleb(12857) == "b9 64");
    CHECK(uleb(~0ULL) == "ff ff ff ff ff ff ff ff ff 01");
    const auto sleb = [](std::int64_t value) {
        exo::os::ByteBuffer out;
        out.sleb(value);
        return as_hex(out.bytes());
    };
    CHECK(sleb(2) == "02");
    CHECK(sleb(-2) == "7e");
    CHECK(sleb(127) == "ff 00");
    CHECK(sleb(-127) == "81 7f");
    CHECK(sleb(128) == "80 01");
    CHECK(sleb(-128) == "80 7f");
    CHECK(sleb(std::numeric_limits<std::int64_t>::min()) == "80 80 80 80 80 80 80 80 80 7f");
}

TEST_CASE("cfi: instructions in their shortest form") {
    CHECK(written([](auto& i) { i.advance(0); }) == "");
    CHECK(written([](auto& i) { i.advance(1); }) == "41");
    CHECK(written([](auto& i) { i.advance(63); }) == "7f");
    CHECK(written([](auto& i) { i.advance(64); }) == "02 40");
    CHECK(written([](auto& i) { i.advance(0x100); }) == "03 00 01");
    CHECK(written([](auto& i) { i.advance(0x1'0000); }) == "04 00 00 01 00");
    CHECK(written([](auto& i) { i.advance(0x1'0000'0001); }) == "04 ff ff ff ff 42");
    CHECK(written([](auto& i) { i.def_cfa(Register::rsp, 8); }) == "0c 07 08");
    CHECK(written([](auto& i) { i.def_cfa(Register::rbp, 200); }) == "0c 06 c8 01");
    CHECK(written([](auto& i) { i.def_cfa_offset(16); }) == "0e 10");
    CHECK(written([](auto& i) { i.saved(Register::rbp, -16); }) == "86 02");
    CHECK(written([](auto& i) { i.saved(Register::return_address, -8); }) == "90 01");
    CHECK(written([](auto& i) { i.saved(Register::rflags, -24); }) == "b1 03");
    CHECK(written([](auto& i) { i.saved(Register::rbp, 8); }) == "11 06 7f");
    CHECK(written([](auto& i) { i.same(Register::rbp); }) == "08 06");
    CHECK(written([](auto& i) { i.undefined(Register::return_address); }) == "07 10");
}

TEST_CASE("cfi: what has no plain form is an expression") {
    CHECK(written([](auto& i) { i.def_cfa(Register::rsp, -40); }) == "0f 02 77 58");
    CHECK(written([](auto& i) { i.saved(Register::rbp, -3); }) == "10 06 03 11 7d 22");
    CHECK(written([](auto& i) { i.saved(Register::rbp, 3); }) == "10 06 02 23 03");
}

TEST_CASE("cfi: expressions") {
    const auto rsp = Expression{}.reg(Register::rsp, 0);
    CHECK(as_hex(rsp.bytes()) == "77 00");
    CHECK(as_hex(Expression{}.reg(Register::r15, -8).deref().bytes()) == "7f 78 06");
    CHECK(as_hex(Expression{}.address(VirtualAddress{0xffff'ffff'80ff'f008}).bytes()) ==
          "03 08 f0 ff 80 ff ff ff ff");
    CHECK(as_hex(Expression{}.add(0).bytes()) == "");
    CHECK(as_hex(Expression{}.duplicate().mask(3).bytes()) == "12 33 1a");
    // bra over `no` and its skip; skip over `yes`.
    CHECK(as_hex(Expression{}.if_else(Expression{}.add(16), Expression{}.deref()).bytes()) ==
          "28 04 00 06 2f 02 00 23 10");
}

TEST_CASE("cfi: section of CIEs and FDEs, each padded to 8 bytes") {
    FrameSection section;
    Instructions initial;
    initial.def_cfa(Register::rsp, 8);
    initial.saved(Register::return_address, -8);
    CHECK(section.add_cie(initial, false) == 0);
    const auto signal = section.add_cie(initial, true);
    CHECK(signal == 24);
    Instructions row;
    row.advance(4);
    row.def_cfa_offset(16);
    section.add_fde(signal, VirtualAddress{0xffff'ffff'8100'0000}, 0x20, row);
    CHECK(section.size() == 24 + 24 + 32);
    CHECK(as_hex(section.take()) ==
          "14 00 00 00 ff ff ff ff 01 00 01 78 10 0c 07 08 90 01 00 00 00 00 00 00 "
          "14 00 00 00 ff ff ff ff 01 53 00 01 78 10 0c 07 08 90 01 00 00 00 00 00 "
          "1c 00 00 00 18 00 00 00 00 00 00 81 ff ff ff ff 20 00 00 00 00 00 00 00 "
          "44 0e 10 00 00 00 00 00");
}
