// Steps where the processor has no monitor trap flag.
#include <doctest/doctest.h>

#include <array>
#include <cstring>

#include "backends/xen/event_execution.h"
#include "fake_domain.h"

namespace exo {
namespace {

using namespace std::chrono_literals;
using Xen = test::FakeXenDomain;
using Cause = StopEvent::Cause;

}  // namespace

TEST_CASE("steps by the trap flag where there is nothing better, and none where there is nothing") {
    Xen machine{1};
    machine.code(Xen::text, {Xen::count, Xen::nop, Xen::nop, Xen::jump, 0xfb});
    machine.vcpus[0].cpu.rip = Xen::text;
    test::FakeDomain domain{machine};
    domain.given_abilities = {.debug_exceptions = true};
    {
        xen::EventExecution execution{domain, domain.given_abilities};
        CHECK_FALSE(execution.supports(BreakpointKind::software));
        REQUIRE(execution.attach());
        for (const auto rip : {Xen::text + 1, Xen::text + 2, Xen::text + 3, Xen::text}) {
            REQUIRE(execution.resume(std::array{VcpuAction::step}));
            const auto event = execution.wait_for_stop(1s);
            REQUIRE(event);
            REQUIRE(*event);
            CHECK((*event)->cause == Cause::step);
            CHECK(machine.vcpus[0].cpu.rip == rip);
            CHECK(machine.vcpus[0].cpu.rflags == 2);  // unseen
        }
    }
    CHECK_FALSE(machine.enabled);
    CHECK(machine.exceptions.empty());
    domain.given_abilities = {};
    xen::EventExecution execution{domain, domain.given_abilities};
    REQUIRE(execution.attach());
    const auto refused = execution.resume(std::array{VcpuAction::step});
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Errc::unsupported);
    REQUIRE(execution.resume(std::array{VcpuAction::run}));
}

TEST_CASE("a trap flag of ours is not left in what the guest has saved") {
    Xen machine{1};
    machine.code(Xen::text, {Xen::push_flags, Xen::pop_flags, Xen::count, Xen::jump, 0xfb});
    machine.code(0x3000, {Xen::nop, Xen::nop, Xen::interrupt_return});
    machine.vcpus[0].cpu.rip = Xen::text;
    machine.vcpus[0].cpu.rsp = Xen::data + 0x100;
    test::FakeDomain domain{machine};
    domain.given_abilities = {.debug_exceptions = true};
    xen::EventExecution execution{domain, domain.given_abilities};
    REQUIRE(execution.attach());
    REQUIRE(execution.resume(std::array{VcpuAction::step}));
    REQUIRE(execution.wait_for_stop(1s));
    CHECK(machine.vcpus[0].cpu.rip == Xen::text + 1);
    std::uint64_t saved = 0;
    std::memcpy(&saved, machine.memory.bytes(PhysicalAddress{Xen::data + 0xf8}, 8).data(), 8);
    CHECK(saved == 2);
    // A step that is cut short in a handler: what its return makes is not the guest's.
    for (const bool resumed : {true, false}) {
        const auto rip = machine.vcpus[0].cpu.rip;
        REQUIRE(execution.resume(std::array{VcpuAction::step}));
        machine.interrupt(0, 0x3000);
        execution.interrupt();
        const auto event = execution.wait_for_stop(1s);
        REQUIRE(event);
        REQUIRE(*event);
        CHECK((*event)->cause == Cause::interrupt);
        CHECK(machine.vcpus[0].interrupted->rip == rip);
        if (resumed) {
            REQUIRE(execution.resume(std::array{VcpuAction::run}));
            const auto none = execution.wait_for_stop(5ms);
            REQUIRE(none);
            CHECK_FALSE(*none);
            execution.interrupt();
            REQUIRE(execution.wait_for_stop(1s));
        } else {
            REQUIRE(execution.detach());
        }
        CHECK_FALSE(machine.vcpus[0].interrupted);
        CHECK(machine.vcpus[0].cpu.rflags == 2);
    }
    machine.run(50);
    CHECK(machine.exceptions.empty());
    CHECK(xen::parse_monitor_journal(machine.journal)->empty());
}

TEST_CASE("what the hypervisor executes for the guest is not stepped by the trap flag") {
    const std::vector<std::vector<std::uint8_t>> executed{
        {0xf4}, {0x0f, 0xa2}, {0x48, 0x0f, 0x22, 0xd8}, {0x66, 0xef}, {0x0f, 0x01, 0xd9}, {0x0f, 0x32}};
    const std::vector<std::vector<std::uint8_t>> others{
        {0x90}, {0x0f, 0x01, 0xf8}, {0x0f, 0x05}, {0x48, 0x89, 0xf4}};
    for (const bool refused : {true, false})
        for (const auto& code : refused ? executed : others) {
            Xen machine{1};
            machine.code(Xen::text, code);
            machine.vcpus[0].cpu.rip = Xen::text;
            test::FakeDomain domain{machine};
            domain.given_abilities = {.debug_exceptions = true};
            xen::EventExecution execution{domain, domain.given_abilities};
            REQUIRE(execution.attach());
            const auto resumed = execution.resume(std::array{VcpuAction::step});
            CHECK(resumed.has_value() != refused);
            if (refused) CHECK(resumed.error().code == Errc::unsupported);
            if (refused) CHECK(machine.vcpus[0].cpu.rflags == 2);
            // It stands as before, and can go on.
            if (refused) CHECK(execution.resume(std::array{VcpuAction::run}));
        }
}

}  // namespace exo
