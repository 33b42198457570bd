#include "backends/arch/x86_64.h"

#include <array>
#include <set>
#include <string>

#include <doctest/doctest.h>

using namespace exo;

TEST_CASE("registers follow each other without gaps, in the order of their numbers") {
    const RegisterLayout& layout = x86::layout();
    REQUIRE(layout.registers.size() == x86::register_count);
    std::uint32_t offset = 0;
    std::set<std::string_view> names;
    for (const RegisterInfo& info : layout.registers) {
        CAPTURE(std::string{info.name});
        CHECK(info.offset == offset);
        CHECK(info.bits % 8 == 0);
        CHECK(info.feature < layout.features.size());
        CHECK(names.insert(info.name).second);
        offset += info.bits / 8U;
    }
    CHECK(layout.size == offset);
}

// gdb/features/i386/64bit-core.xml, 64bit-sse.xml: where gdb expects them in `g`.
TEST_CASE("known offsets") {
    const auto& registers = x86::layout().registers;
    CHECK(registers[x86::rax].offset == 0);
    CHECK(registers[x86::rip].offset == 128);
    CHECK(registers[x86::eflags].offset == 136);
    CHECK(registers[x86::st0].offset == 164);
    CHECK(registers[x86::fctrl].offset == 244);
    CHECK(registers[x86::xmm0].offset == 276);
    CHECK(registers[x86::mxcsr].offset == 532);
}

// A feature that lacks one of the registers gdb requires of it is refused as a whole (gdb/i386-tdep.c,
// i386_validate_tdesc_p).
TEST_CASE("features have gdb's names and all of its registers") {
    const RegisterLayout& layout = x86::layout();
    const auto feature_of = [&](std::string_view name) -> std::string_view {
        const auto number = layout.find(name);
        return number ? layout.features[layout.registers[*number].feature].name : "";
    };
    for (const auto* name :
         {"rax", "rbx", "rcx",   "rdx",   "rsi",  "rdi",    "rbp",   "rsp",   "r8",    "r9", "r10", "r11",
          "r12", "r13", "r14",   "r15",   "rip",  "eflags", "cs",    "ss",    "ds",    "es", "fs",  "gs",
          "st0", "st7", "fctrl", "fstat", "ftag", "fiseg",  "fioff", "foseg", "fooff", "fop"}) {
        CHECK_MESSAGE(feature_of(name) == "org.gnu.gdb.i386.core", name);
    }
    for (int i = 0; i < 16; ++i) {
        CHECK(feature_of("xmm" + std::to_string(i)) == "org.gnu.gdb.i386.sse");
        CHECK(feature_of("ymm" + std::to_string(i) + "h") == "org.gnu.gdb.i386.avx");
    }
    CHECK(feature_of("mxcsr") == "org.gnu.gdb.i386.sse");
    CHECK(feature_of("fs_base") == "org.gnu.gdb.i386.segments");
    CHECK(feature_of("gs_base") == "org.gnu.gdb.i386.segments");
    // Not a feature of gdb's: it would refuse one that is not as it knows it.
    CHECK_FALSE(feature_of("cr3").starts_with("org.gnu.gdb."));
    CHECK(layout.architecture == "i386:x86-64");
}

TEST_CASE("each type that a register uses is gdb's own or defined by its feature") {
    static const std::set<std::string_view> built_in{"int",     "int8",     "int32",    "int64",
                                                     "uint128", "data_ptr", "code_ptr", "i387_ext"};
    const RegisterLayout& layout = x86::layout();
    for (const RegisterInfo& info : layout.registers) {
        CAPTURE(std::string{info.name});
        const std::string id = "id=\"" + std::string{info.type} + "\"";
        const bool defined = layout.features[info.feature].types.find(id) != std::string_view::npos;
        CHECK((built_in.contains(info.type) || defined));
    }
}

TEST_CASE("a debugger must not write control registers back after an inferior call") {
    const auto& registers = x86::layout().registers;
    CHECK_FALSE(registers[x86::cr3].save_restore);
    CHECK_FALSE(registers[x86::efer].save_restore);
    CHECK(registers[x86::rax].save_restore);
    CHECK(registers[x86::gs_base].save_restore);
}

TEST_CASE("expedited: rip first, rsp, rbp, no number above two hex digits") {
    const RegisterLayout& layout = x86::layout();
    std::set<RegisterNumber> seen;
    for (const RegisterNumber number : layout.expedited) {
        CHECK(number <= 0xff);
        CHECK(seen.insert(number).second);
    }
    CHECK(layout.expedited.front() == layout.pc);
    CHECK(seen.contains(x86::rsp));
    CHECK(seen.contains(x86::rbp));
    CHECK(layout.registers[layout.pc].name == "rip");
    CHECK(layout.registers[layout.sp].name == "rsp");
}

// System V psABI, figure 3.36.
TEST_CASE("DWARF numbers") {
    const auto& registers = x86::layout().registers;
    CHECK(registers[x86::rax].dwarf == 0);
    CHECK(registers[x86::rdx].dwarf == 1);
    CHECK(registers[x86::rcx].dwarf == 2);
    CHECK(registers[x86::rbx].dwarf == 3);
    CHECK(registers[x86::rsi].dwarf == 4);
    CHECK(registers[x86::rdi].dwarf == 5);
    CHECK(registers[x86::rbp].dwarf == 6);
    CHECK(registers[x86::rsp].dwarf == 7);
    CHECK(registers[x86::rip].dwarf == 16);
    CHECK(registers[x86::xmm0].dwarf == 17);
    CHECK(registers[x86::st0].dwarf == 33);
    CHECK(registers[x86::fs_base].dwarf == 58);
    CHECK(registers[x86::cr3].dwarf == -1);
    std::set<int> seen;
    for (const RegisterInfo& info : registers) {
        if (info.dwarf >= 0) CHECK_MESSAGE(seen.insert(info.dwarf).second, std::string{info.name});
    }
}

TEST_CASE("paging modes") {
    struct Case {
        std::uint64_t cr0, cr4, efer;
        x86::PagingMode mode;
    };
    constexpr std::uint64_t pg = x86::cr0_pe | x86::cr0_pg;
    constexpr std::array cases{
        Case{x86::cr0_pe, x86::cr4_pae, x86::efer_lma, x86::PagingMode::none},
        Case{pg, 0, 0, x86::PagingMode::bits32},
        Case{pg, x86::cr4_pae, 0, x86::PagingMode::pae},
        Case{pg, x86::cr4_pae, x86::efer_lma, x86::PagingMode::levels4},
        Case{pg, x86::cr4_pae | x86::cr4_la57, x86::efer_lma, x86::PagingMode::levels5},
        // LA57 counts in long mode only.
        Case{pg, x86::cr4_pae | x86::cr4_la57, 0, x86::PagingMode::pae},
    };
    for (const Case& c : cases) {
        RegisterSet registers{x86::layout()};
        CHECK_FALSE(x86::paging_mode(registers).has_value());
        registers.set(x86::cr0, c.cr0);
        registers.set(x86::cr4, c.cr4);
        CHECK_FALSE(x86::paging_mode(registers).has_value());
        registers.set(x86::efer, c.efer);
        CHECK(x86::paging_mode(registers) == c.mode);
    }
}
