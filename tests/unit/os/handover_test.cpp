#include "os-awareness/handover.h"

#include <doctest/doctest.h>

#include <cstring>

#include "backends/arch/x86_64.h"
#include "os-awareness/linux/decompressor.h"
#include "tests/support/fake_target.h"

using namespace exo;
using namespace exo::os;

namespace {

constexpr std::uint64_t pml4 = 0x1000, pdpt = 0x2000, directory = 0x3000;
constexpr std::uint64_t present = 3, large = 0x83;

// A decompressor in 2 MiB that are mapped where they are.
struct Booting {
    Booting() {
        put(pml4, pdpt | present);
        put(pdpt, directory | present);
        put(directory, large);
        vcpu.set(x86::cr0, x86::cr0_pe | x86::cr0_pg);
        vcpu.set(x86::cr4, x86::cr4_pae);
        vcpu.set(x86::efer, x86::efer_lma);
        vcpu.set(x86::cr3, pml4);
        vcpu.set(x86::cs, 0x10);
        vcpu.set(x86::rip, 0x20000);
    }
    void put(std::uint64_t at, std::uint64_t entry) {
        std::memcpy(ram.at(at, sizeof entry).data(), &entry, sizeof entry);
    }
    void code(std::uint64_t at, std::initializer_list<int> bytes) {
        auto to = ram.at(at, bytes.size()).begin();
        for (const int byte : bytes) *to++ = static_cast<std::byte>(byte);
    }
    std::optional<VirtualAddress> found() { return find_handover(ram, vcpu); }

    test::FakeRam ram{1U << 20U};
    RegisterSet vcpu{x86::layout()};
};

}  // namespace

TEST_CASE("the decompressor's jump, as kernels before 6.1 and since have it") {
    Booting old;
    old.code(0x21000, {0xe8, 1, 2, 3, 4, 0x5e, 0xff, 0xe0});
    CHECK(old.found() == VirtualAddress{0x21006});
    Booting now;
    now.code(0x21000, {0xe8, 1, 2, 3, 4, 0x4c, 0x89, 0xfe, 0xff, 0xe0});
    CHECK(now.found() == VirtualAddress{0x21008});
}

TEST_CASE("a jump with no call before it is another") {
    Booting guest;
    guest.code(0x21000, {0x90, 1, 2, 3, 4, 0x5e, 0xff, 0xe0});
    CHECK_FALSE(guest.found());
    guest.code(0, {0x5e, 0xff, 0xe0});  // nothing is before it
    CHECK_FALSE(guest.found());
}

TEST_CASE("of two copies the one that is executed") {
    Booting guest;
    guest.code(0x11000, {0xe8, 1, 2, 3, 4, 0x5e, 0xff, 0xe0});
    guest.code(0x21000, {0xe8, 1, 2, 3, 4, 0x5e, 0xff, 0xe0});
    CHECK(guest.found() == VirtualAddress{0x21006});
    guest.vcpu.set(x86::rip, 0x12000);
    CHECK(guest.found() == VirtualAddress{0x11006});
}

TEST_CASE("in no other mode is there one") {
    const auto without = [](RegisterNumber number, std::uint64_t value) {
        Booting guest;
        guest.code(0x21000, {0xe8, 1, 2, 3, 4, 0x5e, 0xff, 0xe0});
        guest.vcpu.set(number, value);
        return guest.found();
    };
    CHECK_FALSE(without(x86::efer, 0));
    CHECK_FALSE(without(x86::cs, 0x33));
    CHECK_FALSE(without(x86::rip, 0xffffffff81000000));
    CHECK_FALSE(without(x86::rip, 0x40000000));  // nothing is mapped there
    Booting unknown;
    unknown.vcpu.set_unavailable(x86::cr3);
    CHECK_FALSE(unknown.found());
}

TEST_CASE("a kernel is executed at its own addresses, in long mode") {
    Booting guest;
    CHECK_FALSE(executes_kernel(guest.vcpu));
    guest.vcpu.set(x86::rip, 0xffffffff81000000);
    CHECK(executes_kernel(guest.vcpu));
    guest.vcpu.set(x86::efer, 0);
    CHECK_FALSE(executes_kernel(guest.vcpu));
}
