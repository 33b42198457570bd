// What transcripts do not show of non-stop mode: an event and a moment's stand at the same time, limits,
// errors.
#include "stub/non_stop.h"
#include "backends/arch/x86_64.h"

#include <doctest/doctest.h>

#include "stub/session.h"
#include "tests/support/fake_machine.h"

using namespace exo;
using namespace exo::stub;
using exo::test::FakeMachine;
using exo::test::Log;

namespace {

constexpr std::chrono::milliseconds at_once{0};
constexpr std::string_view gdb = "qSupported:multiprocess+;swbreak+;hwbreak+;no-resumed+";

// init is on vCPU 0, bash sleeps.
struct NonStopSession {
    NonStopSession() {
        fake.add_task(1, "init", 0);
        fake.save(fake.add_task(64, "bash"), 0xffffffff81000100, 0xffff888000104000);
        auto& idle = fake.add_task(0, "swapper/1", 1);
        idle.idle = true;
        idle.cpu = 1;
        REQUIRE(session.open().has_value());
        for (const auto packet : {gdb, std::string_view{"QNonStop:1"}, std::string_view{"vCont;c"}}) {
            REQUIRE_FALSE(session.dispatch(packet).payload.empty());
        }
        run();
        static_cast<void>(fake.target->take_log());
    }
    // What kinds of stop replies there were after the one that is known.
    std::string fetch_all() {
        std::string kinds;
        for (auto reply = session.dispatch("vStopped"); reply.payload != "OK";
             reply = session.dispatch("vStopped")) {
            kinds += reply.payload.at(0);
            REQUIRE(kinds.size() < 10);
        }
        return kinds;
    }
    std::vector<std::string> run() {
        const auto reply = session.poll_stop(at_once);
        return reply ? reply->after : std::vector<std::string>{};
    }

    FakeMachine fake;
    Session session{*fake.machine, {}};
};

TEST_CASE("an event that comes as the machine is stopped for a moment is not lost") {
    NonStopSession s;
    s.fake.target->in_next_wait([&] {
        s.fake.target->absorb_interrupt();
        s.fake.target->script({.cause = StopEvent::Cause::write_watch, .address = VirtualAddress{0x10}});
    });
    const Reply reply = s.session.dispatch("qfThreadInfo");
    CHECK(reply.payload.starts_with("mp500000.1,"));
    REQUIRE(reply.after.size() == 1);
    CHECK(reply.after[0].starts_with("Stop:T05thread:p500000.1;"));
    CHECK(reply.after[0].ends_with("watch:10;"));
    CHECK(s.run().empty());
    CHECK(s.fake.target->take_log() == Log{"resume hold run"});
}

TEST_CASE("the machine stands once for packets that come together") {
    NonStopSession s;
    for (const auto* packet : {"vCont;t:p500000.64", "qfThreadInfo", "Z0,ffffffff81000180,1", "Tp500000.1"}) {
        CHECK_FALSE(s.session.dispatch(packet).payload.starts_with('E'));
        CHECK_FALSE(s.fake.target->is_running());
    }
    CHECK(s.run().empty());
    CHECK(s.fake.target->is_running());
    CHECK(s.fake.target->take_log() == Log{"insert software 0xffffffff81000180 1", "resume run run"});
}

TEST_CASE("registers of a held vCPU are read once, and again after they were written") {
    NonStopSession s;
    CHECK(s.session.dispatch("vCont;t:p500000.1").payload == "OK");
    CHECK(s.session.dispatch("Hgp500000.1").payload == "OK");
    CHECK(s.session.dispatch("g").payload.starts_with("00"));
    CHECK(s.run().empty());
    s.fake.target->set(0, x86::rax, 0x11);  // as if it were not held
    CHECK(s.session.dispatch("p0").payload == "0000000000000000");
    CHECK(s.fake.target->is_running());
    CHECK(s.session.dispatch("P0=2200000000000000").payload == "OK");
    CHECK(s.session.dispatch("p0").payload == "2200000000000000");
    CHECK(s.run().empty());
    s.fetch_all();
    CHECK(s.session.dispatch("vCont;c").payload == "OK");
    CHECK(s.run().empty());
    CHECK(s.session.dispatch("p0").payload == "E10");
}

TEST_CASE("a thread that began since the list was read is found") {
    NonStopSession s;
    s.fake.add_task(65, "worker");
    CHECK(s.session.dispatch("Hgp500000.41").payload == "OK");
    CHECK(s.session.dispatch("Hgp500000.42").payload == "E03");
}

TEST_CASE("the queue does not grow with what is asked for again") {
    NonStopSession s;
    CHECK(s.session.dispatch("vCont;t").after.size() == 1);
    for (int i = 0; i < 100; ++i) {
        CHECK(s.session.dispatch("vCont;t:p500000.99").payload == "OK");
        CHECK(s.session.dispatch("vCtrlC").payload == "OK");
    }
    CHECK(s.fetch_all() == "TTwN");
}

TEST_CASE("a task that was woken before the others were stopped does not run when all are") {
    NonStopSession s;
    CHECK(s.session.dispatch("vCont;t:p500000.40").payload == "OK");
    CHECK(s.run().empty());
    s.fake.switch_to(64, 1);
    CHECK(s.session.dispatch("vCont;t").payload == "OK");
    s.fetch_all();
    CHECK(s.run().empty());
    CHECK_FALSE(s.fake.target->is_running());
    static_cast<void>(s.fake.target->take_log());
    CHECK(s.session.dispatch("vCont;s:p500000.1").payload == "OK");
    s.fake.target->script({.cause = StopEvent::Cause::step, .vcpu = 0},
                          [&] { s.fake.target->set(0, x86::rip, 0x1234); });
    CHECK(s.run().size() == 1);
    CHECK(s.fake.target->take_log() == Log{"resume step hold"});
}

TEST_CASE("a guest that ends as the machine is stopped for a moment is told of once") {
    NonStopSession s;
    s.fake.target->in_next_wait([&] {
        s.fake.target->absorb_interrupt();
        s.fake.target->script({.cause = StopEvent::Cause::exited});
    });
    s.fake.target->fail("insert", {Errc::target_gone, "gone"});
    const Reply reply = s.session.dispatch("Z0,ffffffff81000180,1");
    CHECK(reply.payload.starts_with('E'));
    CHECK(reply.after == std::vector<std::string>{"Stop:W00;process:500000"});
    CHECK(s.session.guest_gone);
    const Reply last = s.session.dispatch("vStopped");
    CHECK(last.payload == "OK");
    CHECK(last.closes);
}

TEST_CASE("the first action that matches a thread is its own") {
    NonStopSession s;
    CHECK(s.session.dispatch("vCont;t").payload == "OK");
    s.fetch_all();
    CHECK(s.session.dispatch("vCont;c:p500000.1;t:p500000.1;c:p1.-1").payload == "OK");
    CHECK(s.session.non_stop.stopped(1) == nullptr);
    CHECK(s.session.non_stop.stopped(64) != nullptr);
    CHECK(s.session.dispatch("vCont;t:p500000.40;c:p500000.-1;s:p500000.500002").payload == "OK");
    CHECK(s.session.non_stop.stopped(64) != nullptr);
    CHECK(s.session.non_stop.stopped(idle_tid + 1) == nullptr);
    CHECK(s.run().empty());
    CHECK(s.fake.target->take_log() == Log{"resume run run"});
}

TEST_CASE("a machine that does not stop is an error, and asked again") {
    NonStopSession s;
    s.fake.target->fail("wait", {Errc::timed_out, "no"});
    CHECK(s.session.dispatch("qfThreadInfo").payload.starts_with('E'));
}

TEST_CASE("a client that vanishes leaves the guest running, whatever ran") {
    NonStopSession s;
    SUBCASE("all") {}
    SUBCASE("some") {
        CHECK(s.session.dispatch("vCont;t:p500000.1").payload == "OK");
        CHECK(s.run().empty());
    }
    SUBCASE("none") { CHECK(s.session.dispatch("vCont;t").payload == "OK"); }
    REQUIRE(s.session.close().has_value());
    CHECK(s.fake.target->is_running());
    CHECK(s.fake.target->take_log().back() == "detach");
}

TEST_CASE("a guest that is not attached is not run") {
    NonStopSession s;
    CHECK(s.session.dispatch("D").payload == "OK");
    SUBCASE("by a client that stays") {}
    SUBCASE("by a client that changes the mode twice") {
        CHECK(s.session.dispatch("QNonStop:0").payload == "OK");
        CHECK(s.session.dispatch("QNonStop:1").payload == "OK");
    }
    CHECK_FALSE(s.session.non_stop.watches());
    CHECK(s.run().empty());
    CHECK(s.fake.target->take_log() == Log{"detach"});
    // The mode holds for what is attached next.
    REQUIRE(s.session.open().has_value());
    CHECK(s.session.dispatch("?").payload.starts_with("T"));
    CHECK(s.fetch_all().empty());
    CHECK(s.session.dispatch("vCont;c").payload == "OK");
    CHECK(s.run().empty());
    CHECK(s.fake.target->take_log() == Log{"attach", "resume run run"});
}

}  // namespace
