// RunControl over a fake machine, for its tests.
#pragma once

#include <doctest/doctest.h>

#include "stub/run_control.h"
#include "tests/support/fake_machine.h"

namespace exo::test {

using Cause = StopEvent::Cause;
using Reason = rsp::StopReply::Reason;

inline constexpr std::uint64_t kernel_text = 0xffffffff81000000;
inline constexpr std::uint64_t wake = kernel_text + 0x100;  // where switched-away tasks go on
inline constexpr std::uint64_t stack1 = 0xffff888000104000;
inline constexpr std::uint64_t stack2 = 0xffff888000204000;
inline constexpr std::chrono::milliseconds now{0};

// init on vCPU 0, swapper/1 on vCPU 1, worker and sleeper on none.
struct Controlled {
    explicit Controlled(FakeMachineShape shape = {}) : fake(std::move(shape)), control(*fake.machine, false) {
        fake.kernel.tasks.reserve(8);
        fake.save(fake.add_task(1, "init", 0), wake, stack1);
        fake.add_task(2, "other", 1);
        fake.save(fake.add_task(3, "worker"), wake, stack2);
        fake.add_task(4, "lost");  // its registers cannot be found
        fake.target->set(0, x86::rsp, stack1);
        REQUIRE(fake.target->attach().has_value());
        control.fresh_threads();
        log();
    }

    Log log() { return fake.target->take_log(); }
    Result<void> resume(std::string_view actions) { return control.resume(*rsp::Resume::parse(actions)); }
    // A stop on `vcpu`, at `rip`, before which `tid` came to run there (0: nobody else).
    void script(Cause cause, VcpuId vcpu, std::uint64_t rip, std::uint64_t rsp = 0, std::uint32_t tid = 0) {
        fake.target->script({.cause = cause, .vcpu = vcpu}, [this, vcpu, rip, rsp, tid] {
            fake.target->set(vcpu, x86::rip, rip);
            if (rsp != 0) fake.target->set(vcpu, x86::rsp, rsp);
            if (tid != 0) fake.switch_to(tid, vcpu);
        });
    }
    // Until there is a stop or nothing more happens.
    Result<std::optional<stub::RunControl::Stop>> poll() {
        for (;;) {
            const std::size_t before = fake.target->scripted();
            auto stop = control.poll(now);
            if (!stop || *stop || fake.target->scripted() == before) return stop;
        }
    }
    stub::RunControl::Stop stop() {
        auto stop = poll();
        REQUIRE(stop.has_value());
        REQUIRE(stop->has_value());
        return **stop;
    }
    void runs_on() {
        auto stop = poll();
        REQUIRE(stop.has_value());
        CHECK_FALSE(stop->has_value());
        CHECK(fake.target->is_running());
        CHECK(fake.target->scripted() == 0);
    }
    void breakpoint(std::uint64_t address) {
        REQUIRE(
            control.breakpoints.insert({BreakpointKind::software, VirtualAddress{address}, 1}).has_value());
    }
    [[nodiscard]] std::size_t inserted() const { return fake.target->inserted().size(); }

    FakeMachine fake;
    stub::RunControl control;
};

}  // namespace exo::test
