// backends/qemu on a live guest: what a session does, and what goes wrong in one.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "backends/arch/x86_64.h"
#include "backends/registry.h"
#include "tests/support/live/qemu_guest.h"
#include "tests/support/target_contract.h"

using namespace exo;
using namespace exo::test;
using namespace std::chrono_literals;
using Cause = StopEvent::Cause;

namespace {

const std::vector<BreakpointKind> both_kinds{BreakpointKind::software, BreakpointKind::hardware};

TargetUri uri_of(const QemuGuest& guest) { return {"qemu", guest.qmp_socket()}; }

std::uint32_t word(Target& target, PhysicalAddress address) {
    std::uint32_t value = 0;
    REQUIRE(target.memory().read(address, std::as_writable_bytes(std::span{&value, 1})));
    return value;
}

bool counts(Target& target) {
    const auto before = word(target, Firmware::counter);
    for (int i = 0; i < 100; ++i) {
        std::this_thread::sleep_for(10ms);
        if (word(target, Firmware::counter) != before) return true;
    }
    return false;
}

// Opened once the firmware runs.
std::unique_ptr<Target> open_running(const QemuGuest& guest) {
    REQUIRE(guest.valid());
    auto target = open_target(uri_of(guest), {});
    REQUIRE_MESSAGE(target, target.error().message);
    for (int i = 0; i < 600 && word(**target, Firmware::counter) < 1000; ++i)
        std::this_thread::sleep_for(100ms);
    REQUIRE(word(**target, Firmware::counter) >= 1000);
    return std::move(*target);
}

std::vector<VcpuAction> all(VcpuAction action) { return {action, action}; }
std::vector<VcpuAction> only_first(VcpuAction action) { return {action, VcpuAction::hold}; }

StopEvent wait(Target& target) {
    const auto event = target.execution()->wait_for_stop(20s);
    REQUIRE_MESSAGE(event, event.error().message);
    REQUIRE(*event);
    return **event;
}

StopEvent go(Target& target, const std::vector<VcpuAction>& actions) {
    const auto resumed = target.execution()->resume(actions);
    REQUIRE_MESSAGE(resumed, resumed.error().message);
    return wait(target);
}

std::uint64_t pc_of(Target& target, VcpuId vcpu = 0) {
    const auto registers = target.read_registers(vcpu);
    REQUIRE_MESSAGE(registers, registers.error().message);
    return registers->get(x86::rip).value_or(0);
}

std::byte code_byte(Target& target) {
    std::byte code{};
    REQUIRE(target.memory().read(PhysicalAddress{raw(Firmware::func)}, {&code, 1}));
    return code;
}

bool journal_exists(pid_t qemu) {
    struct stat status{};
    return ::stat(("/run/exogdb/qemu-" + std::to_string(qemu) + ".json").c_str(), &status) == 0;
}

// A second exogdb: attaches, inserts a breakpoint, and is then killed, or lives on until `release` is closed.
class OtherServer {
public:
    OtherServer(const TargetUri& uri, BreakpointKind kind, VirtualAddress address = Firmware::func) {
        REQUIRE(::pipe(ready_) == 0);
        pid_ = ::fork();
        if (pid_ == 0) {
            run(uri, kind, address);
            ::_exit(1);
        }
        char byte = 0;
        REQUIRE(::read(ready_[0], &byte, 1) == 1);
        CHECK(byte == 'y');
    }
    ~OtherServer() {
        kill();
        ::close(ready_[0]);
        ::close(ready_[1]);
    }
    void kill() {
        if (pid_ <= 0) return;
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
        pid_ = 0;
    }

private:
    void run(const TargetUri& uri, BreakpointKind kind, VirtualAddress address) const {
        auto target = open_target(uri, {});
        const bool ok = target && (*target)->execution()->attach() &&
                        (*target)->breakpoints()->insert(kind, address, 1) &&
                        (*target)->execution()->resume(all(VcpuAction::run)) &&
                        (*target)->execution()->wait_for_stop(address == Firmware::func ? 20s : 1s);
        if (::write(ready_[1], ok ? "y" : "n", 1) == 1) ::pause();
    }

    int ready_[2] = {-1, -1};
    pid_t pid_ = 0;
};

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

void check_recovery(const QemuGuest& guest, BreakpointKind kind) {
    {
        OtherServer server{uri_of(guest), kind};
        CHECK(journal_exists(guest.pid()));
        const auto refused = recover_target(uri_of(guest), {});
        REQUIRE_FALSE(refused);
        CHECK(refused.error().code == Errc::busy);
    }
    const auto report = recover_target(uri_of(guest), {});
    REQUIRE_MESSAGE(report, report.error().message);
    CHECK(report->actions.size() == 3);
    CHECK_FALSE(journal_exists(guest.pid()));
    const auto again = recover_target(uri_of(guest), {});
    REQUIRE(again);
    CHECK(again->actions.empty());
    const auto target = open_running(guest);
    CHECK(counts(*target));
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

TEST_CASE("a killed server: recover") {
    const QemuGuest guest{"tcg", false};
    open_running(guest);
    check_recovery(guest, BreakpointKind::software);
    check_recovery(guest, BreakpointKind::hardware);
}

TEST_CASE("a killed server on KVM: recover" * doctest::skip(::access("/dev/kvm", R_OK | W_OK) != 0)) {
    const QemuGuest guest{"kvm", false};
    if (!guest.valid()) {
        MESSAGE("QEMU does not start with KVM here");
        return;
    }
    open_running(guest);
    check_recovery(guest, BreakpointKind::hardware);
    OtherServer{uri_of(guest), BreakpointKind::software, Firmware::unused}.kill();
    auto target = open_target({"qemu", guest.second_qmp_socket()}, {});
    REQUIRE(target);
    std::byte byte{};
    REQUIRE((*target)->memory().read(PhysicalAddress{raw(Firmware::unused)}, {&byte, 1}));
    CHECK(byte == std::byte{0xcc});
    REQUIRE(recover_target(uri_of(guest), {}));
    REQUIRE((*target)->memory().read(PhysicalAddress{raw(Firmware::unused)}, {&byte, 1}));
    CHECK(byte == std::byte{0x90});
    CHECK(counts(**target));
}

TEST_CASE("a killed server: the next attach cleans up") {
    const QemuGuest guest{"tcg", false};
    open_running(guest);
    OtherServer{uri_of(guest), BreakpointKind::software}.kill();
    const auto target = open_running(guest);
    REQUIRE(target->execution()->attach());
    REQUIRE(target->execution()->resume(all(VcpuAction::run)));
    CHECK(counts(*target));  // nothing stops it any more
    REQUIRE(target->execution()->detach());
    CHECK(counts(*target));
    CHECK_FALSE(journal_exists(guest.pid()));
}

TEST_CASE("one debugger at a time") {
    const QemuGuest guest{"tcg", false};
    open_running(guest);
    OtherServer server{uri_of(guest), BreakpointKind::software};
    const auto second = open_target({"qemu", guest.second_qmp_socket()}, {});
    REQUIRE_MESSAGE(second, second.error().message);
    const auto refused = (*second)->execution()->attach();
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Errc::busy);
    const auto same_socket = open_target(uri_of(guest), {});
    REQUIRE_FALSE(same_socket);
    CHECK(same_socket.error().code == Errc::busy);
}

TEST_CASE("a guest that was paused stays paused") {
    const QemuGuest guest{"tcg", false};
    const auto target = open_running(guest);
    REQUIRE(target->console()->command("stop"));
    REQUIRE(target->execution()->attach());
    REQUIRE(target->execution()->resume(all(VcpuAction::run)));
    CHECK(counts(*target));
    REQUIRE(target->execution()->detach());
    CHECK_FALSE(target->running().value());
    CHECK_FALSE(counts(*target));
    REQUIRE(target->console()->command("cont"));
    CHECK(counts(*target));
}

TEST_CASE("the user's own stub comes back") {
    const QemuGuest guest{"tcg", false, {"-gdb", "tcp:127.0.0.1:0"}};
    const auto target = open_running(guest);
    const auto before = target->console()->command("info chardev");
    REQUIRE(before);
    REQUIRE(before->find("gdb: ") != std::string::npos);
    REQUIRE(target->execution()->attach());
    REQUIRE(target->execution()->detach());
    CHECK(target->console()->command("info chardev").value() == *before);
    CHECK(counts(*target));
}

TEST_CASE("a gdb client of somebody else") {
    const QemuGuest guest{"tcg", false};
    const auto target = open_running(guest);
    const auto path = guest.directory() + "/other.sock";
    REQUIRE(target->console()->command("gdbserver unix:" + path + ",server=on,wait=off"));
    const int client = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    REQUIRE(::connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    std::this_thread::sleep_for(200ms);
    const auto refused = target->execution()->attach();
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Errc::busy);
    CHECK(refused.error().message.find("already has a gdb client") != std::string::npos);
    CHECK_FALSE(journal_exists(guest.pid()));
    ::close(client);
}

TEST_CASE("paused and let go by the hypervisor's own tools") {
    const QemuGuest guest{"tcg", false};
    const auto target = open_running(guest);
    REQUIRE(target->execution()->attach());
    REQUIRE(target->execution()->resume(all(VcpuAction::run)));
    REQUIRE(target->console()->command("stop"));
    CHECK(wait(*target).cause == Cause::interrupt);
    // Behind our back: the next request stops it again and gets its answer.
    REQUIRE(target->console()->command("cont"));
    CHECK(pc_of(*target) >= raw(Firmware::loop));
    CHECK(pc_of(*target, 1) != 0);
    CHECK_FALSE(counts(*target));
    REQUIRE(target->execution()->detach());
    CHECK(counts(*target));
}

TEST_CASE("a reboot in the middle") {
    const QemuGuest guest{"tcg", false};
    const auto target = open_running(guest);
    REQUIRE(target->execution()->attach());
    REQUIRE(target->execution()->resume(all(VcpuAction::run)));
    REQUIRE(target->console()->command("system_reset"));
    std::this_thread::sleep_for(1s);
    target->execution()->interrupt();
    CHECK(wait(*target).cause == Cause::interrupt);
    std::byte vector{};  // the reset vector's jmp far, in ROM
    REQUIRE(target->memory().read(PhysicalAddress{0xfffffff0}, {&vector, 1}));
    CHECK(vector == std::byte{0xea});
    REQUIRE(target->execution()->detach());
    for (int i = 0; i < 300 && !counts(*target); ++i) std::this_thread::sleep_for(100ms);
    CHECK(counts(*target));
}

TEST_CASE("QEMU killed in a session") {
    QemuGuest guest{"tcg", false};
    const auto target = open_running(guest);
    const auto pid = guest.pid();
    REQUIRE(target->execution()->attach());
    REQUIRE(target->execution()->resume(all(VcpuAction::run)));
    guest.kill();
    CHECK(wait(*target).cause == Cause::exited);
    const auto code = [](const auto& result) { return result ? Errc{} : result.error().code; };
    std::byte byte{};
    CHECK(code(target->running()) == Errc::target_gone);
    CHECK(code(target->read_registers(0)) == Errc::target_gone);
    CHECK(code(target->memory().read_some(Firmware::counter, {&byte, 1})) == Errc::target_gone);
    CHECK(code(target->breakpoints()->insert(BreakpointKind::software, Firmware::func, 1)) ==
          Errc::target_gone);
    CHECK(code(target->execution()->resume(all(VcpuAction::run))) == Errc::target_gone);
    CHECK(code(target->execution()->detach()) == Errc::target_gone);
    CHECK(code(target->execution()->attach()) == Errc::target_gone);
    CHECK(code(target->console()->command("info status")) == Errc::target_gone);
    CHECK_FALSE(journal_exists(pid));
}

TEST_CASE("QEMU quits in a session, attached and stopped") {
    QemuGuest guest{"tcg", true};
    const auto target = open_running(guest);
    REQUIRE(target->execution()->attach());
    guest.kill();
    const auto registers = target->read_registers(0);
    REQUIRE_FALSE(registers);
    CHECK(registers.error().code == Errc::target_gone);
}
