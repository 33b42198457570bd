// What the live tests of backends/qemu share.
#pragma once

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <thread>

#include "backends/arch/x86_64.h"
#include "backends/registry.h"
#include "tests/support/live/qemu_guest.h"

namespace exo::test {

using namespace std::chrono_literals;
using Cause = StopEvent::Cause;

inline TargetUri uri_of(const QemuGuest& guest) { return {"qemu", guest.qmp_socket()}; }

// KVM's backend could serve those that have KVM.
inline OpenOptions by_stub() { return {.connect = {}, .backend = BackendWish::qemu, .tell = {}}; }

inline std::uint32_t word(Target& target, PhysicalAddress address) {
    std::uint32_t value = 0;
    REQUIRE(target.memory().read(address, std::as_writable_bytes(std::span{&value, 1})));
    return value;
}

inline bool counts(Target& target) {
    const auto before = word(target, Firmware::counter);
    for (int i = 0; i < 100; ++i) {
        std::this_thread::sleep_for(10ms);
        if (word(target, Firmware::counter) != before) return true;
    }
    return false;
}

// Opened once the firmware runs.
inline std::unique_ptr<Target> open_running(const QemuGuest& guest) {
    REQUIRE(guest.valid());
    auto target = open_target(uri_of(guest), by_stub());
    REQUIRE_MESSAGE(target, target.error().message);
    for (int i = 0; i < 600 && word(**target, Firmware::counter) < 1000; ++i)
        std::this_thread::sleep_for(100ms);
    REQUIRE(word(**target, Firmware::counter) >= 1000);
    return std::move(*target);
}

inline std::vector<VcpuAction> all(VcpuAction action) { return {action, action}; }
inline std::vector<VcpuAction> only_first(VcpuAction action) { return {action, VcpuAction::hold}; }

inline StopEvent wait(Target& target) {
    const auto event = target.execution()->wait_for_stop(20s);
    REQUIRE_MESSAGE(event, event.error().message);
    REQUIRE(*event);
    return **event;
}

inline StopEvent go(Target& target, const std::vector<VcpuAction>& actions) {
    const auto resumed = target.execution()->resume(actions);
    REQUIRE_MESSAGE(resumed, resumed.error().message);
    return wait(target);
}

inline std::uint64_t pc_of(Target& target, VcpuId vcpu = 0) {
    const auto registers = target.read_registers(vcpu);
    REQUIRE_MESSAGE(registers, registers.error().message);
    return registers->get(x86::rip).value_or(0);
}

inline std::byte code_byte(Target& target) {
    std::byte code{};
    REQUIRE(target.memory().read(PhysicalAddress{raw(Firmware::func)}, {&code, 1}));
    return code;
}

inline bool journal_exists(pid_t qemu) {
    struct stat status{};
    return ::stat(("/run/exogdb/qemu-" + std::to_string(qemu) + ".json").c_str(), &status) == 0;
}

}  // namespace exo::test
