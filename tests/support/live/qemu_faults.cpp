// backends/qemu on a live guest: what goes wrong in a session.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "tests/support/live/live.h"

using namespace exo;
using namespace exo::test;

namespace {

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
        auto target = open_target(uri, by_stub());
        const bool ok = target && (*target)->execution()->attach() &&
                        (*target)->breakpoints()->insert(kind, address, 1) &&
                        (*target)->execution()->resume(all(VcpuAction::run)) &&
                        (*target)->execution()->wait_for_stop(address == Firmware::func ? 20s : 1s);
        if (::write(ready_[1], ok ? "y" : "n", 1) == 1) ::pause();
    }

    int ready_[2] = {-1, -1};
    pid_t pid_ = 0;
};

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
    auto target = open_target({"qemu", guest.second_qmp_socket()}, by_stub());
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
    const auto second = open_target({"qemu", guest.second_qmp_socket()}, by_stub());
    REQUIRE_MESSAGE(second, second.error().message);
    const auto refused = (*second)->execution()->attach();
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Errc::busy);
    const auto same_socket = open_target(uri_of(guest), by_stub());
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
