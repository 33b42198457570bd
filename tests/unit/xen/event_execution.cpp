#include "backends/xen/event_execution.h"

#include <doctest/doctest.h>

#include <memory>

#include "backends/xen/monitor_recover.h"
#include "fake_domain.h"

namespace exo {
namespace {

using namespace std::chrono_literals;
using Xen = test::FakeXenDomain;
using Cause = StopEvent::Cause;

// A guest with a debugger.
struct Guest {
    explicit Guest(std::uint32_t vcpus = 1, bool views = false) : xen(vcpus), domain(xen) {
        domain.given_abilities.views = views;
        // count; nop; count; jump to the beginning
        xen.code(Xen::text, {Xen::count, Xen::nop, Xen::nop, Xen::jump, 0xfb});
        for (auto& vcpu : xen.vcpus) vcpu.cpu.rip = Xen::text;
        execution = std::make_unique<xen::EventExecution>(domain, domain.given_abilities);
        REQUIRE(execution->attach());
    }

    void resume(std::vector<VcpuAction> actions = {}) {
        actions.resize(xen.vcpus.size(), VcpuAction::run);
        const auto resumed = execution->resume(actions);
        REQUIRE_MESSAGE(resumed, (resumed ? "" : resumed.error().message));
    }
    StopEvent stop() {
        const auto event = execution->wait_for_stop(2s);
        REQUIRE_MESSAGE(event, (event ? "" : event.error().message));
        REQUIRE(*event);
        return **event;
    }
    StopEvent run(std::vector<VcpuAction> actions = {}) {
        resume(std::move(actions));
        return stop();
    }
    void insert(BreakpointKind kind, std::uint64_t address, std::uint32_t length = 1) {
        const auto inserted = execution->insert(kind, VirtualAddress{address}, length);
        REQUIRE_MESSAGE(inserted, (inserted ? "" : inserted.error().message));
    }
    // The guest is as if nobody had been there.
    void check_clean(const std::vector<std::byte>& before) {
        CHECK_FALSE(xen.enabled);
        CHECK_FALSE(xen.altp2m);
        CHECK(xen.views.size() == 1);
        CHECK(xen.views[xen::host_view].access.empty());
        CHECK(xen.pages.empty());
        CHECK(xen.maximum == 1000);
        CHECK(xen.pauses == 0);
        CHECK(std::ranges::equal(xen.memory.bytes(PhysicalAddress{0}, before.size()), before));
        for (const auto& vcpu : xen.vcpus) {
            CHECK_FALSE(vcpu.waits);
            CHECK_FALSE(vcpu.stepping);
            CHECK(vcpu.view == xen::host_view);
            CHECK(vcpu.cpu.dr7 == 0);
        }
        const auto counted = xen.vcpus[0].cpu.rax;
        xen.run(20);
        CHECK(xen.vcpus[0].cpu.rax > counted);
        const auto journal = xen::parse_monitor_journal(xen.journal);
        REQUIRE(journal);
        CHECK(journal->empty());
    }
    std::vector<std::byte> ram() {
        const auto bytes = xen.memory.bytes(PhysicalAddress{0}, Xen::ram_frames * xen::page_bytes);
        return {bytes.begin(), bytes.end()};
    }

    Xen xen;
    test::FakeDomain domain;
    std::unique_ptr<xen::EventExecution> execution;
};

}  // namespace

TEST_CASE("a software breakpoint is met once in each round, visible or hidden") {
    for (const bool views : {false, true})
        for (const std::uint32_t vcpus : {1U, 2U}) {
            CAPTURE(views);
            CAPTURE(vcpus);
            Guest guest{vcpus, views};
            const auto before = guest.ram();
            guest.insert(BreakpointKind::software, Xen::text + 1);
            CHECK(guest.xen.byte(Xen::text + 1) == (views ? Xen::nop : Xen::int3));
            std::vector<std::uint64_t> hits(vcpus);
            for (int i = 0; i < 40; ++i) {
                const auto event = guest.run();
                REQUIRE(event.cause == Cause::breakpoint);
                CHECK(raw(event.address) == Xen::text + 1);
                CHECK(guest.xen.vcpus[event.vcpu].cpu.rip == Xen::text + 1);
                ++hits.at(event.vcpu);
                // One that has come there and has not been told yet is one ahead.
                const auto counted = guest.xen.vcpus[event.vcpu].cpu.rax;
                CHECK(counted == hits[event.vcpu]);
            }
            CHECK(guest.xen.exceptions.empty());
            REQUIRE(guest.execution->detach());
            guest.check_clean(before);
        }
}

TEST_CASE("a hidden page can be read and written by the guest, and its breakpoint stays") {
    Guest guest{1, true};
    // store to the page of code that has the breakpoint, then load from it
    guest.xen.code(Xen::text, {Xen::count, Xen::nop, Xen::store, Xen::load, Xen::jump, 0xfa});
    guest.xen.vcpus[0].cpu.rdi = Xen::text + 0x800;
    guest.insert(BreakpointKind::software, Xen::text + 1);
    for (std::uint64_t i = 1; i <= 5; ++i) {
        REQUIRE(guest.run().cause == Cause::breakpoint);
        CHECK(guest.xen.vcpus[0].cpu.rax == i);
        if (i > 1) CHECK(guest.xen.vcpus[0].cpu.rbx == i - 1);
    }
    guest.xen.vcpus[0].cpu.rdi = Xen::text + 1;  // it reads its own instruction, not ours
    guest.xen.code(Xen::text + 2, {Xen::load, Xen::nop});
    REQUIRE(guest.run().cause == Cause::breakpoint);
    CHECK(guest.xen.vcpus[0].cpu.rbx == Xen::nop);
}

TEST_CASE("the guest's own int3 and #DB reach the guest, and are not told") {
    for (const bool views : {false, true}) {
        Guest guest{1, views};
        guest.xen.code(Xen::text, {Xen::count, Xen::int3, Xen::nop, Xen::jump, 0xfb});
        guest.insert(BreakpointKind::software, Xen::text + 2);
        for (int i = 1; i <= 3; ++i) {
            REQUIRE(guest.run().cause == Cause::breakpoint);
            CHECK(guest.xen.exceptions[3] == i);
        }
        // Beneath one of ours, too.
        guest.insert(BreakpointKind::software, Xen::text + 1);
        for (int i = 0; i < 4; ++i) REQUIRE(guest.run().cause == Cause::breakpoint);
        CHECK(guest.xen.exceptions[3] == 5);
        REQUIRE(guest.execution->remove(BreakpointKind::software, VirtualAddress{Xen::text + 1}, 1));
        CHECK(guest.xen.byte(Xen::text + 1) == Xen::int3);
    }
    Guest guest;
    guest.insert(BreakpointKind::hardware, Xen::text + 2);
    guest.xen.vcpus[0].cpu.rflags |= 1U << 8U;  // the guest steps itself
    REQUIRE(guest.run().cause == Cause::hardware_breakpoint);
    CHECK(guest.xen.exceptions[1] == 2);
}

TEST_CASE("each step is one instruction, with breakpoints or without") {
    for (const bool views : {false, true})
        for (const bool breakpoint : {false, true}) {
            Guest guest{2, views};
            if (breakpoint) guest.insert(BreakpointKind::software, Xen::text + 1);
            const auto held = guest.xen.vcpus[1].cpu;
            std::uint64_t expected = Xen::text;
            for (int i = 0; i < 100; ++i) {
                const auto event = guest.run({VcpuAction::step, VcpuAction::hold});
                // Before the instruction that it stands at.
                if (breakpoint && event.cause == Cause::breakpoint) {
                    CHECK(guest.xen.vcpus[0].cpu.rip == Xen::text + 1);
                    continue;
                }
                REQUIRE(event.cause == Cause::step);
                expected = expected == Xen::text + 3 ? Xen::text : expected + 1;
                CHECK(guest.xen.vcpus[0].cpu.rip == expected);
                CHECK(guest.xen.vcpus[1].cpu.rip == held.rip);
                CHECK(guest.xen.vcpus[1].cpu.rax == held.rax);
            }
            CHECK(guest.xen.exceptions.empty());
        }
}

TEST_CASE("watched bytes are told of, their neighbours are not") {
    for (const bool views : {false, true})
        for (const std::uint32_t vcpus : {1U, 2U}) {
            Guest guest{vcpus, views};
            guest.xen.code(Xen::text, {Xen::store, Xen::load, Xen::jump, 0xfc});
            guest.xen.vcpus[0].cpu.rdi = Xen::data + 0x10;
            guest.xen.vcpus[0].cpu.rax = 1;
            if (vcpus > 1) guest.xen.vcpus[1].cpu.rdi = Xen::data + 0x900;  // another part of the page
            guest.insert(BreakpointKind::write_watch, Xen::data + 3, 300);
            for (int i = 0; i < 3; ++i) {
                const auto event = guest.run();
                REQUIRE(event.cause == Cause::write_watch);
                CHECK(raw(event.address) == Xen::data + 3);
                CHECK(event.vcpu == 0);
                CHECK(guest.xen.byte(Xen::data + 0x10) == 1);  // the store has taken effect
                CHECK(guest.xen.vcpus[0].cpu.rip == Xen::text + 1);
            }
            REQUIRE(guest.execution->remove(BreakpointKind::write_watch, VirtualAddress{Xen::data + 3}, 300));
            guest.insert(BreakpointKind::read_watch, Xen::data + 0x10, 1);
            const auto read = guest.run();
            REQUIRE(read.cause == Cause::read_watch);
            CHECK(guest.xen.vcpus[0].cpu.rip == Xen::text + 2);
            // Out of the range, on the page: nothing is told.
            guest.xen.vcpus[0].cpu.rdi = Xen::data + 0x11;
            guest.resume();
            const auto none = guest.execution->wait_for_stop(20ms);
            REQUIRE(none);
            CHECK_FALSE(*none);
            CHECK(guest.xen.byte(Xen::data + 0x11) == 1);
        }
}

TEST_CASE("debug registers: breakpoints and watchpoints, and the guest gets its own back") {
    Guest guest{2};
    guest.xen.code(Xen::text, {Xen::count, Xen::store, Xen::nop, Xen::jump, 0xfb});
    for (auto& vcpu : guest.xen.vcpus) {
        vcpu.cpu.rdi = Xen::data + 8;
        vcpu.cpu.dr0 = 0x1234;
    }
    guest.insert(BreakpointKind::hardware, Xen::text + 2);
    for (int i = 0; i < 6; ++i) {
        const auto event = guest.run();
        REQUIRE(event.cause == Cause::hardware_breakpoint);
        CHECK(guest.xen.vcpus[event.vcpu].cpu.rip == Xen::text + 2);
    }
    REQUIRE(guest.execution->remove(BreakpointKind::hardware, VirtualAddress{Xen::text + 2}, 1));
    guest.insert(BreakpointKind::write_watch, Xen::data + 8, 1);
    for (int i = 0; i < 4; ++i) {
        const auto event = guest.run();
        REQUIRE(event.cause == Cause::write_watch);
        CHECK(guest.xen.vcpus[event.vcpu].cpu.rip == Xen::text + 2);
    }
    for (const std::uint64_t at : {0U, 16U, 32U}) guest.insert(BreakpointKind::hardware, 0x3000 + at);
    CHECK(guest.execution->insert(BreakpointKind::hardware, VirtualAddress{0x3100}, 1).error().code ==
          Errc::no_free_slot);
    REQUIRE(guest.execution->detach());
    CHECK(guest.xen.vcpus[0].cpu.dr0 == 0x1234);
    CHECK(guest.xen.vcpus[1].cpu.dr7 == 0);
}

TEST_CASE("a judge lets hits go on, and moves the vCPU if it wants") {
    for (const bool views : {false, true}) {
        Guest guest{2, views};
        guest.insert(BreakpointKind::software, Xen::text + 1);
        int judged = 0;
        guest.execution->judge_hits([&](const StopEvent& event) -> Result<bool> {
            CHECK(guest.execution->stands(event.vcpu));
            // Behind the instruction, in one case of two.
            if (++judged % 2 == 0) guest.xen.vcpus[event.vcpu].cpu.rip = Xen::text + 2;
            return judged < 20;
        });
        const auto event = guest.run();
        CHECK(event.cause == Cause::breakpoint);
        CHECK(judged == 20);
        const auto counted = guest.xen.vcpus[0].cpu.rax + guest.xen.vcpus[1].cpu.rax;
        // The other one may stand before it.
        CHECK(counted >= 20);
        CHECK(counted <= 21);
    }
}

TEST_CASE("a stop of a guest that runs, and its end") {
    Guest guest{2};
    guest.resume();
    const auto none = guest.execution->wait_for_stop(5ms);
    REQUIRE(none);
    CHECK_FALSE(*none);
    guest.execution->interrupt();
    CHECK(guest.stop().cause == Cause::interrupt);
    const auto counted = guest.xen.vcpus[0].cpu.rax;
    guest.xen.run(20);
    CHECK(guest.xen.vcpus[0].cpu.rax == counted);
    guest.xen.code(Xen::text, {Xen::halt, Xen::halt});
    guest.xen.code(Xen::text + 2, {Xen::halt, Xen::halt, Xen::halt});
    guest.resume();
    guest.xen.alive = false;
    CHECK(guest.stop().cause == Cause::exited);
    CHECK(guest.execution->detach());
}

TEST_CASE("a breakpoint at HLT: the vCPU is past it when it waits there") {
    for (const bool views : {false, true}) {
        Guest guest{1, views};
        guest.xen.code(Xen::text, {Xen::count, Xen::halt, Xen::nop, Xen::jump, 0xfb});
        guest.insert(BreakpointKind::software, Xen::text + 1);
        REQUIRE(guest.run().cause == Cause::breakpoint);
        guest.resume();
        CHECK(guest.xen.vcpus[0].halted);
        CHECK(guest.xen.byte(Xen::text + 1) == (views ? Xen::halt : Xen::int3));
        guest.xen.vcpus[0].halted = false;  // an interrupt
        REQUIRE(guest.stop().cause == Cause::breakpoint);
        CHECK(guest.xen.vcpus[0].cpu.rax == 2);
    }
}

TEST_CASE("another tool has the monitor") {
    Xen machine{1};
    machine.enabled = true;
    test::FakeDomain domain{machine};
    xen::EventExecution execution{domain, domain.given_abilities};
    const auto attached = execution.attach();
    REQUIRE_FALSE(attached);
    CHECK(attached.error().code == Errc::busy);
    CHECK(machine.pauses == 0);
    CHECK(machine.enabled);
}

TEST_CASE("killed at any moment, all is undone") {
    for (const bool views : {false, true})
        for (int moment = 0; moment < 12; ++moment) {
            CAPTURE(views);
            CAPTURE(moment);
            auto guest = std::make_unique<Guest>(2, views);
            const auto before = guest->ram();
            guest->insert(BreakpointKind::software, Xen::text + 1);
            guest->insert(BreakpointKind::hardware, Xen::text + 2);
            guest->insert(BreakpointKind::access_watch, Xen::data, 100);
            for (int i = 0; i < moment; ++i)
                guest->run({i % 3 == 0 ? VcpuAction::step : VcpuAction::run,
                            i % 2 == 0 ? VcpuAction::run : VcpuAction::hold});
            if (moment % 2 == 0) guest->resume();
            guest->domain.dead = true;
            guest->execution.reset();
            if (guest->xen.pauses > 0) --guest->xen.pauses;  // the backend's own journal has that
            const auto journal = xen::parse_monitor_journal(guest->xen.journal);
            REQUIRE(journal);
            guest->domain.dead = false;
            const auto done = xen::undo_monitor(guest->domain, *journal);
            REQUIRE(done);
            CHECK_FALSE(done->empty());
            guest->check_clean(before);
        }
}

}  // namespace exo
