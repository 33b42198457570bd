#include "stub/skip.h"

#include <doctest/doctest.h>

#include <tuple>

#include "backends/arch/instructions.h"
#include "rsp/hex.h"
#include "tests/support/fake_machine.h"

using namespace exo;
using namespace exo::test;

TEST_CASE("NOPs by their length") {
    struct Row {
        std::string_view code;
        std::size_t length;
    };
    // The kernel's own (arch/x86/include/asm/nops.h), and what looks like one.
    for (const auto& [code, length] : std::initializer_list<Row>{
             {"90", 1},
             {"6690", 2},
             {"0f1f00", 3},
             {"0f1f4000", 4},
             {"0f1f440000", 5},
             {"660f1f440000", 6},
             {"0f1f8000000000", 7},
             {"0f1f840000000000", 8},
             {"2e0f1f840000000000", 9},
             {"66662e0f1f840000000000", 11},
             {"0f1f0425000000009090", 8},  // SIB with no base
             {"0f1f050000000090", 7},      // relative to rip
             {"0f1fc0", 3},
             {"0f1f44", 0},    // cut off
             {"f3900000", 0},  // PAUSE
             {"4190", 0},      // XCHG
             {"f30f1efa", 0},  // ENDBR64
             {"0f1f4800", 0},  // reserved
             {"cc", 0},
             {"", 0},
             {"66666666666666666666666666666690", 0},  // longer than an instruction can be
         }) {
        CAPTURE(code);
        const auto bytes = rsp::from_hex(code);
        REQUIRE(bytes);
        CHECK(x86::nop_length(*bytes) == length);
    }
}

TEST_CASE("a vCPU whose guest steps itself is not put behind a NOP") {
    FakeMachine machine;
    machine.add_task(1, "init", 0);
    REQUIRE(machine.machine->look());
    machine.target->ram().at(0x180, 1)[0] = std::byte{0x90};
    const VirtualAddress pc{0xffffffff81000180};
    constexpr std::uint64_t trap_flag = 0x100;
    machine.target->set(0, x86::rip, raw(pc));
    machine.target->set(0, x86::eflags, trap_flag | 2);
    machine.machine->forget();
    CHECK_FALSE(stub::skip_nop(*machine.machine, 0, pc).value());
    machine.target->set(0, x86::eflags, 2);
    machine.machine->forget();
    CHECK(stub::skip_nop(*machine.machine, 0, pc).value());
    CHECK(machine.target->registers(0).get(x86::rip) == raw(pc) + 1);
    // Below the upper half the mode could be another.
    machine.target->ram().at(0x200, 1)[0] = std::byte{0x90};
    constexpr std::uint64_t user_code = 0x33, of_local_table = 0x7;
    for (const auto& [efer, cs, skipped] :
         std::initializer_list<std::tuple<std::uint64_t, std::uint64_t, bool>>{
             {x86::efer_lma, user_code, true},
             {x86::efer_lma, of_local_table, false},
             {0, user_code, false}}) {
        machine.target->set(0, x86::rip, 0x200);
        machine.target->set(0, x86::efer, efer);
        machine.target->set(0, x86::cs, cs);
        machine.machine->forget();
        CHECK(stub::skip_nop(*machine.machine, 0, VirtualAddress{0x200}).value() == skipped);
    }
}
