#include "backends/qemu/registers.h"

#include <doctest/doctest.h>

#include "backends/arch/x86_64.h"
#include "tests/unit/qemu/captured.h"

using namespace exo;
using namespace exo::qemu;

namespace {

RegisterSet from_text(std::uint32_t vcpu) {
    RegisterSet registers{x86::layout()};
    const auto section = monitor_section(captured::registers_text, vcpu);
    REQUIRE(section);
    fill_from_monitor(registers, *section, Take::all);
    return registers;
}

std::uint64_t high_half(ConstBytes bytes) {
    std::uint64_t value = 0;
    for (std::size_t i = 16; i-- > 8;) value = value << 8U | std::to_integer<std::uint64_t>(bytes[i]);
    return value;
}

}  // namespace

TEST_CASE("monitor text: 64-bit mode") {
    const auto registers = from_text(0);
    CHECK(registers.get(x86::rax) == 0x1ad40);
    CHECK(registers.get(x86::r8) == 0);
    CHECK(registers.get(x86::r9) == 7);
    CHECK(registers.get(x86::r15) == 0x14790);
    CHECK(registers.get(x86::rip) == 0xffffffff92c17a0b);
    CHECK(registers.get(x86::eflags) == 0x246);
    CHECK(registers.get(x86::cs) == 0x10);
    CHECK(registers.get(x86::cs_base) == 0);
    CHECK(registers.get(x86::gs_base) == 0xff350d7f39c00000);
    CHECK(registers.get(x86::tr_selector) == 0x40);
    CHECK(registers.get(x86::tr_base) == 0xfffffe0000003000);
    CHECK(registers.get(x86::ldt_selector) == 0);
    CHECK(registers.get(x86::gdt_base) == 0xfffffe0000001000);
    CHECK(registers.get(x86::idt_base) == 0xfffffe0000000000);
    CHECK(registers.get(x86::cr0) == 0x80050033);
    CHECK(registers.get(x86::cr2) == 0x2d0a2730);
    CHECK(registers.get(x86::cr3) == 0x1017d8000);
    CHECK(registers.get(x86::cr4) == 0x751eb0);
    CHECK(registers.get(x86::efer) == 0xd01);
    CHECK(registers.get(x86::mxcsr) == 0x1f80);
    CHECK(x86::paging_mode(registers) == x86::PagingMode::levels5);
    // The highest word comes first: YMM04= 0 0 4 0302000100008881.
    CHECK(registers.get(x86::xmm0 + 4) == 0x0302000100008881);
    CHECK(high_half(registers.bytes(x86::xmm0 + 4)) == 4);
    CHECK(registers.available(x86::ymm0h + 4));
    CHECK(registers.get(x86::ymm0h + 4) == 0);
    // What QEMU does not print.
    CHECK_FALSE(registers.available(x86::k_gs_base));
    CHECK_FALSE(registers.available(x86::cr8));
    CHECK_FALSE(registers.available(x86::st0));
}

TEST_CASE("monitor text: protected mode") {
    const auto registers = from_text(1);
    CHECK(registers.get(x86::rip) == 0xfd09a);
    CHECK(registers.get(x86::rsp) == 0x6c5c);
    CHECK(registers.get(x86::eflags) == 2);
    CHECK(registers.get(x86::ds) == 0x10);
    CHECK(registers.get(x86::gdt_base) == 0xf6180);
    CHECK(registers.get(x86::cr0) == 0x11);
    CHECK(registers.get(x86::efer) == 0);
    CHECK_FALSE(registers.available(x86::r8));
    CHECK(registers.available(x86::xmm0 + 3));
    CHECK_FALSE(registers.available(x86::ymm0h));  // AVX is off
}

TEST_CASE("monitor text: Take::missing leaves what is known") {
    RegisterSet registers{x86::layout()};
    registers.set(x86::rip, 1);
    fill_from_monitor(registers, *monitor_section(captured::registers_text, 0), Take::missing);
    CHECK(registers.get(x86::rip) == 1);
    CHECK(registers.get(x86::cr3) == 0x1017d8000);
}

TEST_CASE("monitor text: sections and nonsense") {
    CHECK_FALSE(monitor_section(captured::registers_text, 2));
    CHECK_FALSE(monitor_section("", 0));
    CHECK(monitor_section("\nCPU#1\na\n\nCPU#11\nb\n", 1) == "a\n");
    CHECK(monitor_section("\nCPU#11\nb\n", 11) == "b\n");
    RegisterSet registers{x86::layout()};
    fill_from_monitor(
        registers, "RAX=xyz\nR8 = \nYMM99=1 2 3 4\nXMM00=1\nGDT=\n=\nCR3=12345678901234567890\n", Take::all);
    for (const auto number : {x86::rax, x86::r8, x86::xmm0, x86::gdt_base, x86::cr3})
        CHECK_FALSE(registers.available(number));
    fill_from_monitor(registers,
                      "ZMM01=0000000000000008 0000000000000007 0000000000000006 0000000000000005 "
                      "0000000000000004 0000000000000003 0000000000000002 0000000000000001\n",
                      Take::all);
    CHECK(registers.get(x86::xmm0 + 1) == 1);
    CHECK(registers.get(x86::ymm0h + 1) == 3);
}

TEST_CASE("g packet: by name, whatever the stub's order") {
    const std::vector<rsp::DescribedRegister> described{{"rip", 64, 7, "int64"},
                                                        {"unheard_of", 16, 8, "int"},
                                                        {"eflags", 32, 9, "int"},
                                                        {"st0", 80, 10, "i387_ext"},
                                                        {"cr3", 64, 11, "int"}};
    const RegisterMap map{x86::layout(), described};
    RegisterSet registers{x86::layout()};
    REQUIRE(map.fill(registers,
                     "efbeadde00000000"
                     "ffff"
                     "46020000"
                     "0102030405060708090a"
                     "xxxxxxxxxxxxxxxx"));
    CHECK(registers.get(x86::rip) == 0xdeadbeef);
    CHECK(registers.get(x86::eflags) == 0x246);
    CHECK(registers.get(x86::st0) == 0x0807060504030201);
    CHECK_FALSE(registers.available(x86::cr3));
    CHECK_FALSE(registers.available(x86::rax));
    CHECK(map.stub_number(x86::eflags) == 9U);
    CHECK(map.stub_size(x86::st0) == 10);
    CHECK_FALSE(map.stub_number(x86::rax));

    RegisterSet shorter{x86::layout()};
    REQUIRE(map.fill(shorter, "efbeadde00000000"));
    CHECK(shorter.available(x86::rip));
    CHECK_FALSE(shorter.available(x86::eflags));
    CHECK_FALSE(map.fill(shorter, "not hex at all!!"));
}

TEST_CASE("monitor text: how instructions are decoded, and whether any are executed") {
    const auto state = [](std::string_view text) { return state_from_monitor(text); };
    const auto booted = state(*monitor_section(captured::registers_text, 0));
    CHECK(booted.code_bits == 64);
    CHECK(booted.halted == true);
    CHECK(booted.smm == false);
    CHECK(state(*monitor_section(captured::registers_text, 1)).code_bits == 32);
    CHECK(state("HLT=0 SMM=1\nCS =f000 ffff0000 0000ffff 00009b00\nEFER=0000000000000000\n").code_bits == 16);
    // Compatibility mode: EFER.LMA, and a code segment of 32 bits.
    CHECK(state("CS =0023 00000000 ffffffff 00cffb00 DPL=3 CS32\nEFER=0000000000000d01\n").code_bits == 32);
    // L outside long mode.
    CHECK(state("CS =0010 00000000 ffffffff 00af9b00\nEFER=0000000000000000\n").code_bits == 16);
    const auto nothing = state("CS =0010\n");
    CHECK_FALSE(nothing.code_bits);
    CHECK_FALSE(nothing.halted);
}
