#include "stub/machine.h"

#include <array>

#include <doctest/doctest.h>

#include "tests/support/fake_machine.h"

using namespace exo;
using namespace exo::stub;
using exo::test::FakeKernel;
using exo::test::FakeMachine;

TEST_CASE("the OS is looked for until it is there, and again when it has gone") {
    FakeMachine fake;
    Machine& machine = *fake.machine;
    REQUIRE(machine.look().has_value());
    CHECK(machine.os() == nullptr);
    CHECK(machine.os_generation() == 0);
    CHECK(machine.probe_failure().steps == std::vector<std::string>{"fake: no kernel is there"});

    fake.add_task(1, "init", 0);
    REQUIRE(machine.look().has_value());
    REQUIRE(machine.os() != nullptr);
    CHECK(machine.os_generation() == 1);
    const int probes = fake.kernel.probes;
    REQUIRE(machine.look().has_value());
    CHECK(fake.kernel.probes == probes);
    CHECK(machine.os_generation() == 1);

    fake.kernel.present = false;
    REQUIRE(machine.look().has_value());
    CHECK(machine.os() == nullptr);
    CHECK(machine.os_generation() == 2);
    CHECK(fake.kernel.probes == probes + 1);
}

TEST_CASE("one look a stop, however many questions") {
    FakeMachine fake;
    fake.add_task(1, "init", 0);
    Machine& machine = *fake.machine;
    REQUIRE(machine.look_once().has_value());
    REQUIRE(machine.look_once().has_value());
    CHECK(fake.kernel.refreshes == 1);
    machine.forget();
    REQUIRE(machine.look_once().has_value());
    CHECK(fake.kernel.refreshes == 2);
    machine.forget_memory();
    REQUIRE(machine.look_once().has_value());
    CHECK(fake.kernel.refreshes == 2);
}

TEST_CASE("a target whose registers cannot be read") {
    FakeMachine fake;
    fake.target->fail("read_registers", {Errc::target_gone, "gone"});
    CHECK(fake.machine->look().error().code == Errc::target_gone);
    CHECK(fake.machine->look().has_value());
}

TEST_CASE("registers are read once a stop") {
    FakeMachine fake;
    Machine& machine = *fake.machine;
    fake.target->set(0, x86::rip, 0x1111);
    CHECK((*machine.vcpu_registers(0))->get(x86::rip) == 0x1111);
    fake.target->set(0, x86::rip, 0x2222);
    CHECK((*machine.vcpu_registers(0))->get(x86::rip) == 0x1111);
    machine.forget();
    CHECK((*machine.vcpu_registers(0))->get(x86::rip) == 0x2222);
    CHECK(machine.vcpu_registers(2).error().code == Errc::no_such_thread);

    RegisterSet values = **machine.vcpu_registers(0);
    values.set(x86::rip, 0x3333);
    constexpr std::array<RegisterNumber, 1> number{x86::rip};
    REQUIRE(machine.write_vcpu_registers(0, values, number).has_value());
    CHECK((*machine.vcpu_registers(0))->get(x86::rip) == 0x3333);
}

TEST_CASE("address spaces") {
    FakeMachine fake;
    Machine& machine = *fake.machine;
    // No paging, no OS: virtual is physical.
    auto* space = machine.vcpu_space(0).value_or(nullptr);
    REQUIRE(space != nullptr);
    CHECK(raw(space->translate(VirtualAddress{0x1234})->physical) == 0x1234);
    // What the CPU's mode is must be known.
    fake.target->registers(1).set_unavailable(x86::cr0);
    CHECK(machine.vcpu_space(1).error().code == Errc::unsupported);
    CHECK(machine.vcpu_space(7).error().code == Errc::no_such_thread);

    // With an OS, kernel addresses are read through its own tables, whatever the vCPU's are.
    os::Task& init = fake.add_task(1, "init", 0);
    fake.kernel.user_memory[init.address].push_back({.start = 0x400000, .size = 0x1000, .physical = 0x5000});
    REQUIRE(machine.look().has_value());
    space = machine.vcpu_space(0).value_or(nullptr);
    REQUIRE(space != nullptr);
    CHECK(raw(space->translate(VirtualAddress{FakeKernel::text + 0x10})->physical) == 0x10);
    space = machine.task_space(fake.kernel.tasks.front()).value_or(nullptr);
    REQUIRE(space != nullptr);
    CHECK(raw(space->translate(VirtualAddress{0x400010})->physical) == 0x5010);
    CHECK(machine.task_space(fake.kernel.tasks.front()).value_or(nullptr) == space);
}
