#include "backends/kvm/registers.h"

#include <doctest/doctest.h>

#include <array>
#include <cstring>

#include "backends/arch/x86_64.h"

using namespace exo;
using namespace exo::kvm;

TEST_CASE("kvm: numbers of ioctls are those of C") {
    // As a C program prints them, of linux/kvm.h.
    CHECK(ioctl_get_msrs == 0xc008ae88);
    CHECK(ioctl_set_msrs == 0x4008ae89);
    CHECK(ioctl_get_xsave == 0x9000aea4);
    CHECK(ioctl_set_xsave == 0x5000aea5);
    CHECK(ioctl_get_xsave2 == 0x9000aecf);
}

TEST_CASE("kvm: every register has its place") {
    for (RegisterNumber number = 0; number < x86::register_count; ++number)
        CHECK_MESSAGE(holder_of(number) != Holder::none, x86::layout().registers[number].name);
}

TEST_CASE("kvm: general and system registers") {
    RegisterSet registers{x86::layout()};
    kvm_regs regs{};
    regs.rip = 0xffffffff81000000;
    regs.r15 = 15;
    regs.rflags = 0x246;
    fill_from_regs(registers, regs);
    CHECK(registers.get(x86::rip) == 0xffffffff81000000);
    CHECK(registers.get(x86::r15) == 15);
    CHECK(registers.get(x86::eflags) == 0x246);
    CHECK_FALSE(registers.available(x86::cr3));
    kvm_sregs sregs{};
    sregs.cr3 = 0x1234000;
    sregs.gs = {.base = 0xffff888000000000, .selector = 0x2b};
    sregs.gdt.base = 0xfffffe0000001000;
    fill_from_sregs(registers, sregs);
    CHECK(registers.get(x86::cr3) == 0x1234000);
    CHECK(registers.get(x86::gs_base) == 0xffff888000000000);
    CHECK(registers.get(x86::gs) == 0x2b);
    CHECK(registers.get(x86::gdt_base) == 0xfffffe0000001000);
    registers.set(x86::r15, 16);
    registers.set(x86::gs_base, 0x1000);
    CHECK(put_into_regs(regs, registers, x86::r15));
    CHECK(regs.r15 == 16);
    CHECK(put_into_sregs(sregs, registers, x86::gs_base));
    CHECK(sregs.gs.base == 0x1000);
    CHECK(sregs.gs.selector == 0x2b);
    CHECK_FALSE(put_into_regs(regs, registers, x86::cr3));
}

TEST_CASE("kvm: the XSAVE area") {
    RegisterSet registers{x86::layout()};
    XsaveArea area(least_xsave_size);
    const auto put = [&](std::size_t offset, auto value) {
        std::memcpy(area.data() + offset, &value, sizeof value);
    };
    put(0, std::uint16_t{0x37f});
    put(2, std::uint16_t{7U << 11U});            // top of the stack: physical register 7
    area[4] = std::byte{0x80};                   // which alone is used
    put(32, std::uint64_t{0x8000000000000000});  // st0: 1.0
    put(40, std::uint16_t{0x3fff});
    put(160 + 16, std::uint64_t{0x1122334455667788});  // xmm1
    put(576, std::uint64_t{0x99});                     // ymm0h
    put(512, std::uint64_t{7});                        // XSTATE_BV
    fill_from_xsave(registers, area, true);
    CHECK(registers.get(x86::fctrl) == 0x37f);
    CHECK(registers.get(x86::ftag) == 0x3fff);  // valid, and seven that are empty
    CHECK(registers.get(x86::st0) == 0x8000000000000000);
    CHECK(registers.get(x86::xmm0 + 1) == 0x1122334455667788);
    CHECK(registers.get(x86::ymm0h) == 0x99);
    put(512, std::uint64_t{3});  // AVX state is the initial one, whatever lies there
    fill_from_xsave(registers, area, true);
    CHECK(registers.get(x86::ymm0h) == 0);
    fill_from_xsave(registers, area, false);
    CHECK_FALSE(registers.available(x86::ymm0h));
    registers.set(x86::xmm0, 5);
    put(512, std::uint64_t{0});
    CHECK(put_into_xsave(area, registers, x86::xmm0));
    std::uint64_t state = 0;
    std::memcpy(&state, area.data() + 512, sizeof state);
    CHECK(state == 2);
    CHECK(area[160] == std::byte{5});
}
