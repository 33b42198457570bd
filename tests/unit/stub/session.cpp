#include "stub/session.h"

#include <doctest/doctest.h>

#include "tests/support/fake_machine.h"

using namespace exo;
using namespace exo::stub;
using exo::test::FakeMachine;
using exo::test::Log;

TEST_CASE("which packets wait for the guest to stop") {
    for (const auto* payload : {"g", "m1000,4", "Z0,1000,1", "vCont;c", "?", "qfThreadInfo", "Hg0"}) {
        CHECK_MESSAGE(Session::waits_for_stop(payload), payload);
    }
    // Detach, kill and `monitor` are for now; an unknown packet is answered at once.
    for (const auto* payload :
         {"D", "D;500000", "k", "vKill;500000", "qRcmd,7073", "qSupported:x", "vNoSuchPacket"}) {
        CHECK_MESSAGE(!Session::waits_for_stop(payload), payload);
    }
}

TEST_CASE("open stops the guest, close gives it back, once") {
    FakeMachine fake;
    Session session{*fake.machine, {}};
    REQUIRE(session.open().has_value());
    CHECK_FALSE(fake.target->is_running());
    CHECK(session.attached);
    REQUIRE(session.close().has_value());
    REQUIRE(session.close().has_value());
    CHECK(fake.target->take_log() == Log{"attach", "detach"});
    CHECK(fake.target->is_running());
}

TEST_CASE("an open that fails leaves the guest running") {
    FakeMachine fake;
    Session session{*fake.machine, {}};
    fake.target->fail("attach", {Errc::busy, "another debugger"});
    CHECK(session.open().error().code == Errc::busy);
    CHECK_FALSE(session.attached);
    static_cast<void>(fake.target->take_log());
    fake.target->fail("read_registers", {Errc::backend, "no"});
    CHECK(session.open().error().code == Errc::backend);
    CHECK_FALSE(session.attached);
    CHECK(fake.target->take_log() == Log{"attach", "detach"});
    REQUIRE(session.open().has_value());
}

TEST_CASE("an attach that fails leaves the connection usable") {
    FakeMachine fake;
    Session session{*fake.machine, {}};
    REQUIRE(session.open().has_value());
    CHECK(session.dispatch("D").payload == "OK");
    fake.target->fail("attach", {Errc::busy, "another debugger"});
    CHECK(session.dispatch("vAttach;500000").payload == "E.another debugger");
    CHECK(session.dispatch("?").payload == "W00");
    CHECK(session.dispatch("vAttach;500000").payload.starts_with("T05"));
}

TEST_CASE("a client that vanishes while the guest runs") {
    FakeMachine fake{{.int3_in_memory = true}};
    fake.add_task(1, "init", 0);
    fake.target->ram().at(0x180, 1)[0] = std::byte{0x55};
    Session session{*fake.machine, {}};
    REQUIRE(session.open().has_value());
    CHECK(session.dispatch("Z0,ffffffff81000180,1").payload == "OK");
    CHECK(session.dispatch("vCont;c").kind == Reply::Kind::resumed);
    CHECK_FALSE(session.poll_stop(std::chrono::milliseconds{0}).has_value());
    CHECK(session.running);
    REQUIRE(session.close().has_value());
    CHECK_FALSE(session.running);
    CHECK(fake.target->is_running());
    CHECK(fake.target->inserted().empty());
    CHECK(fake.target->ram().at(0x180, 1)[0] == std::byte{0x55});
    // The next client starts from nothing.
    Session next{*fake.machine, {}};
    REQUIRE(next.open().has_value());
    CHECK(next.run_control.breakpoints.all().empty());
}

TEST_CASE("exactly one stop reply for each resume") {
    FakeMachine fake;
    Session session{*fake.machine, {}};
    REQUIRE(session.open().has_value());
    fake.target->script({.cause = StopEvent::Cause::step});
    fake.target->script({.cause = StopEvent::Cause::step});
    CHECK(session.dispatch("vCont;c").kind == Reply::Kind::resumed);
    const auto stop = session.poll_stop(std::chrono::milliseconds{0});
    REQUIRE(stop.has_value());
    CHECK(stop->payload.starts_with("T05"));
    CHECK_FALSE(session.running);
    CHECK(fake.target->scripted() == 1);
}
