// backends/qemu on a live guest: what a session does.
#include <doctest/doctest.h>
#include <unistd.h>

#include "tests/support/live/live.h"
#include "tests/support/target_contract.h"

using namespace exo;
using namespace exo::test;

namespace {

const std::vector<BreakpointKind> both_kinds{BreakpointKind::software, BreakpointKind::hardware};

void check_watchpoint(Target& target) {
    auto& breakpoints = *target.breakpoints();
    REQUIRE(target.execution()->attach());
    REQUIRE(breakpoints.insert(BreakpointKind::write_watch, VirtualAddress{raw(Firmware::calls)}, 4));
    const auto watched = go(target, all(VcpuAction::run));
    CHECK(watched.cause == Cause::write_watch);
    CHECK(raw(watched.address) == raw(Firmware::calls));
    CHECK(pc_of(target) == raw(Firmware::ret));  // the store has taken effect
    REQUIRE(breakpoints.remove(BreakpointKind::write_watch, VirtualAddress{raw(Firmware::calls)}, 4));
    REQUIRE(target.execution()->detach());
}

void check_session(Target& target, const std::vector<BreakpointKind>& kinds) {
    REQUIRE(target.execution()->attach());
    CHECK_FALSE(counts(target));
    auto& breakpoints = *target.breakpoints();
    for (const auto kind : kinds) {
        CAPTURE(static_cast<int>(kind));
        REQUIRE(breakpoints.insert(kind, Firmware::func, 1));
        for (int i = 0; i < 2; ++i) {
            const auto event = go(target, all(VcpuAction::run));
            CHECK(event.cause == Cause::breakpoint);
            CHECK(event.vcpu == 0);
            CHECK(pc_of(target) == raw(Firmware::func));
            REQUIRE(breakpoints.remove(kind, Firmware::func, 1));
            const auto calls = word(target, Firmware::calls);
            CHECK(go(target, only_first(VcpuAction::step)).cause == Cause::step);
            CHECK(pc_of(target) == raw(Firmware::ret));
            CHECK(word(target, Firmware::calls) == calls + 1);
            REQUIRE(breakpoints.insert(kind, Firmware::func, 1));
        }
        REQUIRE(breakpoints.remove(kind, Firmware::func, 1));
    }
    // Code that has run is changed: `incl calls` becomes `incl 0x6008`, and QEMU must notice.
    const auto operand = PhysicalAddress{raw(Firmware::func) + 3};
    const std::byte other{0x08};
    const std::byte own{0x04};
    REQUIRE(target.memory().write(operand, {&other, 1}));
    REQUIRE(target.execution()->resume(all(VcpuAction::run)));
    CHECK(counts(target));
    target.execution()->interrupt();
    CHECK(wait(target).cause == Cause::interrupt);
    CHECK(word(target, PhysicalAddress{0x6008}) > 0);
    REQUIRE(target.memory().write(operand, {&own, 1}));

    // All that is left inserted goes with detach.
    REQUIRE(breakpoints.insert(BreakpointKind::software, Firmware::func, 1));
    REQUIRE(breakpoints.insert(BreakpointKind::hardware, Firmware::loop, 1));
    REQUIRE(target.execution()->detach());
    CHECK(counts(target));
    CHECK(code_byte(target) == std::byte{0x66});
}

}  // namespace

TEST_CASE("session on TCG, private memory") {
    const QemuGuest guest{"tcg", false};
    const auto target = open_running(guest);
    check_session(*target, both_kinds);
    check_watchpoint(*target);
    for (const auto& result : check_target_contract(*target))
        CHECK_MESSAGE(result.ok, result.check << ": " << result.detail);
}

TEST_CASE("session on TCG, shared memory") {
    const QemuGuest guest{"tcg", true};
    const auto target = open_running(guest);
    CHECK(target->description().find("memfd") != std::string::npos);
    check_session(*target, both_kinds);
    check_watchpoint(*target);
}

TEST_CASE("session on KVM" * doctest::skip(::access("/dev/kvm", R_OK | W_OK) != 0)) {
    const QemuGuest guest{"kvm", true};
    if (!guest.valid()) {
        MESSAGE("QEMU does not start with KVM here");
        return;
    }
    const auto target = open_running(guest);
    // A KVM that itself runs on an emulated or nested CPU may pass int3 to the guest: software breakpoints
    // are put in and taken out, but not run into.
    check_session(*target, {BreakpointKind::hardware});
    CHECK_FALSE(target->breakpoints()->supports(BreakpointKind::read_watch));
    REQUIRE(target->execution()->attach());
    for (int i = 0; i < 2; ++i) {
        REQUIRE(target->breakpoints()->insert(BreakpointKind::software, Firmware::func, 1));
        CHECK(code_byte(*target) == std::byte{0xcc});
        REQUIRE(target->breakpoints()->remove(BreakpointKind::software, Firmware::func, 1));
        CHECK(code_byte(*target) == std::byte{0x66});
    }
    // Four debug registers.
    for (std::uint64_t i = 0; i < 5; ++i) {
        const auto inserted =
            target->breakpoints()->insert(BreakpointKind::hardware, VirtualAddress{0x100 + i}, 1);
        CHECK(inserted.has_value() == (i < 4));
        if (!inserted) CHECK(inserted.error().code == Errc::no_free_slot);
    }
    REQUIRE(target->breakpoints()->insert(BreakpointKind::software, Firmware::func, 1));
    REQUIRE(target->execution()->detach());
    CHECK(code_byte(*target) == std::byte{0x66});
    CHECK(counts(*target));
}
