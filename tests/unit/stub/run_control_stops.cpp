// Stops: that they are told without a list of all tasks, and when there has to be one.
#include <doctest/doctest.h>

#include "rsp/hex.h"
#include "stub/session.h"
#include "tests/support/controlled.h"

using namespace exo;
using namespace exo::stub;
using namespace exo::test;
using Fixture = Controlled;

namespace {

constexpr std::uint64_t breakpoint_at = kernel_text + 0x20;

// How often the list was made since.
class Lists {
public:
    explicit Lists(FakeKernel& kernel) : kernel_(kernel), before_(kernel.refreshes) {}
    [[nodiscard]] int made() const { return kernel_.refreshes - before_; }

private:
    FakeKernel& kernel_;
    int before_;
};

}  // namespace

TEST_CASE("a stop names its thread without a list") {
    Fixture f;
    f.breakpoint(breakpoint_at);
    REQUIRE(f.resume("c").has_value());
    const Lists lists{f.fake.kernel};
    SUBCASE("at a breakpoint") { f.script(Cause::breakpoint, 1, breakpoint_at, 0, 3); }
    SUBCASE("for a watchpoint") { f.script(Cause::write_watch, 1, kernel_text, 0, 3); }
    SUBCASE("for ^C") { f.script(Cause::interrupt, 1, kernel_text, 0, 3); }
    CHECK(f.stop().thread == 3);
    REQUIRE(f.control.known(3) != nullptr);
    CHECK(f.control.known(3)->vcpu == 1U);
    CHECK(f.control.known(3)->name == "worker");
    CHECK(f.control.find(3) == f.control.known(3));
    CHECK(lists.made() == 0);
    // Who asks for another gets the list, once.
    CHECK(f.control.find(2) != nullptr);
    CHECK(f.control.known(3) == nullptr);
    CHECK(f.control.find(3)->vcpu == 1U);
    CHECK(lists.made() == 1);
}

TEST_CASE("a breakpoint whose condition is false needs no list: over it and on") {
    Fixture f;
    REQUIRE(f.resume("c").has_value());
    const Lists lists{f.fake.kernel};
    f.log();
    for (int hit = 0; hit < 3; ++hit) {
        f.breakpoint(breakpoint_at);
        f.script(Cause::breakpoint, 1, breakpoint_at, 0, hit == 1 ? 3 : 2);
        const ThreadKey thread = f.stop().thread;
        CHECK(thread == (hit == 1 ? 3 : 2));
        f.control.breakpoints.remove({BreakpointKind::software, VirtualAddress{breakpoint_at}, 1});
        REQUIRE(f.resume("s:" + std::to_string(thread) + ";c").has_value());
        f.script(Cause::step, 1, breakpoint_at + 1);
        CHECK(f.stop().thread == thread);
        REQUIRE(f.resume("c").has_value());
    }
    CHECK(lists.made() == 0);
}

TEST_CASE("without a list the vCPUs do what they do with one") {
    struct Case {
        const char* actions;
        const char* log;  // of the stop in thread 2, on vCPU 1
    };
    for (const Case& c :
         {Case{"c", "resume run run"}, Case{"s:2;c", "resume run step"}, Case{"s:2", "resume hold step"},
          Case{"c:2", "resume hold run"}, Case{"t:2;c", "resume run hold"}, Case{"c;t:2", "resume run run"},
          Case{"c:2;t", "resume hold run"}, Case{"s", "resume step step"}, Case{"s:1;c", "resume step run"},
          Case{"t", ""}, Case{"t:2;t", ""}}) {
        CAPTURE(std::string{c.actions});
        for (const bool with_list : {false, true}) {
            CAPTURE(with_list);
            Fixture f;
            REQUIRE(f.resume("c").has_value());
            f.script(Cause::interrupt, 1, kernel_text);
            CHECK(f.stop().thread == 2);
            if (with_list) f.control.threads();
            f.log();
            CHECK(f.resume(c.actions).has_value() == (*c.log != '\0'));
            CHECK(f.log() == (*c.log != '\0' ? Log{c.log} : Log{}));
        }
    }
}

TEST_CASE("a stop that is not the client's passes without a list") {
    Fixture f;
    f.breakpoint(breakpoint_at);
    REQUIRE(f.resume("c:1").has_value());
    const Lists lists{f.fake.kernel};
    f.script(Cause::breakpoint, 0, breakpoint_at, 0, 3);
    f.script(Cause::step, 0, breakpoint_at + 1);
    f.runs_on();
    CHECK(lists.made() == 0);
    // ^C there: which of those that were resumed is named is for the list to tell.
    f.script(Cause::interrupt, 0, kernel_text);
    CHECK(f.stop().thread == 1);
    CHECK(lists.made() == 1);
}

TEST_CASE("a step over a change of stack, in the same task") {
    Fixture f;
    REQUIRE(f.resume("s:1;c").has_value());
    const Lists lists{f.fake.kernel};
    f.script(Cause::step, 0, kernel_text + 0x50, stack1 + 0x40000);
    CHECK(f.stop().thread == 1);
    CHECK(f.control.known(1) != nullptr);
    CHECK(lists.made() == 0);
}

TEST_CASE("where the thread cannot be told alone, the list tells") {
    Fixture f;
    REQUIRE(f.resume("c").has_value());
    ThreadKey thread = 0;
    SUBCASE("the OS says so") {
        f.fake.kernel.lists_only = true;
        f.script(Cause::breakpoint, 1, kernel_text, 0, 3);
        thread = 3;
    }
    SUBCASE("the vCPU runs nothing that is known") {
        f.script(Cause::breakpoint, 1, kernel_text, 0, 99);
        f.fake.target->script({.cause = Cause::step, .vcpu = 1});
        thread = vcpu_tid + 1;
    }
    SUBCASE("a TID that none can have") {
        f.fake.kernel.tasks[1].tid = ~0U;
        f.script(Cause::breakpoint, 1, kernel_text);
        thread = duplicate_tid + 1;
    }
    SUBCASE("the OS has gone") {
        f.fake.kernel.present = false;
        f.script(Cause::breakpoint, 1, kernel_text);
        thread = 2;  // vCPU 1
    }
    const Lists lists{f.fake.kernel};
    CHECK(f.stop().thread == thread);
    CHECK(lists.made() == 1);
    CHECK(f.control.known(thread) == nullptr);
    CHECK(f.control.find(thread)->vcpu == 1U);
}

TEST_CASE("while two tasks have one TID, ids are the list's") {
    Fixture f;
    f.fake.kernel.tasks[1].tid = 1;  // it comes behind init, on vCPU 1
    for (int stop = 0; stop < 2; ++stop) {
        f.control.fresh_threads();
        REQUIRE(f.fake.machine->look().has_value());
        REQUIRE(f.control.fresh_threads().on_vcpu(1)->tid == duplicate_tid + 1);
        REQUIRE(f.resume("c").has_value());
        f.script(Cause::breakpoint, 1, kernel_text);
        CHECK(f.stop().thread == duplicate_tid + 1);
    }
}

TEST_CASE("an idle task and threads that are vCPUs") {
    FakeMachine fake;
    os::Task& idle = fake.add_task(0, "swapper/1", 1);
    idle.idle = true;
    idle.cpu = 1;
    for (const bool vcpus_only : {false, true}) {
        RunControl control{*fake.machine, vcpus_only};
        REQUIRE(fake.target->attach().has_value());
        REQUIRE(fake.machine->look().has_value());
        control.fresh_threads();
        REQUIRE(control.resume(*rsp::Resume::parse("c")).has_value());
        const Lists lists{fake.kernel};
        fake.target->script({.cause = Cause::breakpoint, .vcpu = 1});
        const auto stop = control.poll(now);
        REQUIRE(stop.has_value());
        REQUIRE(stop->has_value());
        const ThreadKey thread = vcpus_only ? 2 : idle_tid + 1;
        CHECK((*stop)->thread == thread);
        CHECK(control.find(thread)->task.has_value() == !vcpus_only);
        CHECK(lists.made() == 0);
        REQUIRE(fake.target->detach().has_value());
    }
}

TEST_CASE("which packets make the list") {
    FakeMachine fake;
    fake.add_task(1, "init", 0);
    fake.add_task(2, "other", 1);
    fake.kernel.modules.push_back({.address = VirtualAddress{0xffffffffc0000000}, .name = "loop"});
    fake.kernel.modules.back().memory.push_back(
        {.section = ".text", .start = VirtualAddress{0xffffffffc0100000}, .size = 4096, .executable = true});
    Session session{*fake.machine, {}};
    REQUIRE(session.open().has_value());
    static_cast<void>(session.dispatch("qXfer:libraries:read::0,1000"));
    REQUIRE(session.dispatch("vCont;c").kind == Reply::Kind::resumed);
    const Lists lists{fake.kernel};
    fake.target->script({.cause = Cause::breakpoint, .vcpu = 1});
    const auto stop = session.poll_stop(now);
    REQUIRE(stop.has_value());
    CHECK(stop->payload.starts_with("T05thread:2;core:0;"));
    for (const auto* payload :
         {"?", "qC", "Hg2", "Hg0", "g", "p10", "mffffffff81000000,8", "T2", "qThreadExtraInfo,2",
          "Z0,ffffffff81000020,1", "z0,ffffffff81000020,1", "Hc-1"}) {
        CAPTURE(std::string{payload});
        CHECK_FALSE(session.dispatch(payload).payload.starts_with("E"));
        CHECK(lists.made() == 0);
    }
    for (const auto* payload : {"T1", "Hg1", "qfThreadInfo", "jThreadsInfo", "qXfer:threads:read::0,1000"}) {
        CAPTURE(std::string{payload});
        CHECK_FALSE(session.dispatch(payload).payload.starts_with("E"));
        CHECK(lists.made() == 1);
    }
}

TEST_CASE("what `monitor` says of the guest is of this stop") {
    FakeMachine fake;
    fake.add_task(1, "init", 0);
    Session session{*fake.machine, {}};
    REQUIRE(session.open().has_value());
    for (const std::string command : {"info", "problems"}) {
        REQUIRE(session.dispatch("vCont;c").kind == Reply::Kind::resumed);
        fake.target->script({.cause = Cause::breakpoint, .vcpu = 0});
        REQUIRE(session.poll_stop(now).has_value());
        const std::string problem = "seen by " + command;
        fake.kernel.problems = {problem};
        const Reply reply = session.dispatch("qRcmd," + rsp::to_hex(command));
        REQUIRE(reply.before.size() == 1);
        CHECK(reply.before[0].find(rsp::to_hex(problem)) != std::string::npos);
    }
}
