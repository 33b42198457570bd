#include "stub/run_control.h"

#include <doctest/doctest.h>

#include "tests/support/controlled.h"

using namespace exo;
using namespace exo::stub;
using namespace exo::test;
using Fixture = Controlled;

TEST_CASE("a stop names its thread and reason") {
    Fixture f;
    f.breakpoint(kernel_text + 0x20);
    REQUIRE(f.resume("c").has_value());
    f.script(Cause::breakpoint, 1, kernel_text + 0x20);
    const auto stop = f.stop();
    CHECK(stop.thread == 2);
    CHECK(stop.signal == rsp::Signal::trap);
    CHECK(stop.reason == Reason::swbreak);
}

TEST_CASE("an int3 of the guest's own that the hypervisor reports is a plain trap") {
    Fixture f;
    REQUIRE(f.resume("c").has_value());
    f.script(Cause::breakpoint, 1, kernel_text + 0x20);
    CHECK(f.stop().reason == Reason::none);
}

TEST_CASE("nothing is resumed when no thread is named, and an error says so") {
    Fixture f;
    for (const auto* actions : {"c:99", "c:p1.-1", "t", "t:1;t"}) {
        const auto resumed = f.resume(actions);
        REQUIRE_FALSE(resumed.has_value());
        CHECK(resumed.error().code == Errc::no_such_thread);
    }
    CHECK(f.log().empty());
}

TEST_CASE("the first action that matches counts, threads without one are held") {
    Fixture f;
    REQUIRE(f.resume("s:1;c").has_value());
    CHECK(f.log() == Log{"resume step run"});
    f.script(Cause::step, 0, kernel_text);
    CHECK(f.stop().thread == 1);
    REQUIRE(f.resume("c;s:1").has_value());
    CHECK(f.log() == Log{"resume run run"});
    f.script(Cause::step, 0, kernel_text);
    f.stop();
    REQUIRE(f.resume("c:2").has_value());
    CHECK(f.log() == Log{"resume hold run"});
}

TEST_CASE("when only tasks that no vCPU runs are resumed, all vCPUs run") {
    Fixture f;
    REQUIRE(f.resume("c:3").has_value());
    CHECK(f.log() == Log{"resume run run"});
    // Others' stops are not the client's.
    f.script(Cause::step, 0, kernel_text);
    f.script(Cause::breakpoint, 1, kernel_text);
    f.runs_on();
    f.script(Cause::step, 1, kernel_text, 0, 3);
    CHECK(f.stop().thread == 3);
}

TEST_CASE("stepping a task over the breakpoint of another's") {
    Fixture f;
    f.breakpoint(kernel_text + 0x20);
    REQUIRE(f.resume("c:1").has_value());
    f.log();
    f.script(Cause::breakpoint, 0, kernel_text + 0x20, 0, 3);  // worker hits it
    f.script(Cause::step, 0, kernel_text + 0x21);
    f.runs_on();
    CHECK(f.log() == Log{"remove software 0xffffffff81000020 1", "resume step hold",
                         "insert software 0xffffffff81000020 1", "resume run hold"});
}

TEST_CASE("a step over that fails, at each of its steps: the breakpoint is there afterwards") {
    struct Case {
        const char* call;
        int times;
    };
    for (const Case& c : {Case{"remove", 1}, Case{"resume", 1}, Case{"wait", 1}, Case{"insert", 2}}) {
        CAPTURE(std::string{c.call});
        Fixture f;
        f.breakpoint(kernel_text + 0x20);
        REQUIRE(f.resume("c:1").has_value());
        f.fake.target->script({.cause = Cause::breakpoint, .vcpu = 0}, [&] {
            f.fake.target->set(0, x86::rip, kernel_text + 0x20);
            f.fake.switch_to(3, 0);
            // "wait" is this very call's name, so it fails from the next on.
            f.fake.target->fail(c.call, {Errc::backend, "scripted"}, c.times);
        });
        f.script(Cause::step, 0, kernel_text + 0x21);
        const auto stop = f.poll();
        REQUIRE_FALSE(stop.has_value());
        CHECK(stop.error().code == Errc::backend);
        CHECK(f.control.resumed_thread().tid == 1);
        f.control.fresh_threads();
        REQUIRE(f.resume("c").has_value());
        CHECK(f.inserted() == 1);
    }
}

TEST_CASE("what happens in a step over a breakpoint is not lost") {
    Fixture f;
    f.breakpoint(kernel_text + 0x20);
    REQUIRE(f.resume("c:1").has_value());
    f.script(Cause::breakpoint, 0, kernel_text + 0x20, 0, 3);
    f.fake.target->script({.cause = Cause::write_watch, .vcpu = 0, .address = VirtualAddress{0x77}},
                          [&] { f.fake.switch_to(1, 0); });
    const auto stop = f.stop();
    CHECK(stop.thread == 1);
    CHECK(stop.reason == Reason::watch);
    CHECK(stop.watch_address == VirtualAddress{0x77});
}

TEST_CASE("a guest that does not come back from one instruction is interrupted") {
    Fixture f;
    f.breakpoint(kernel_text + 0x20);
    REQUIRE(f.resume("c:1").has_value());
    f.script(Cause::breakpoint, 0, kernel_text + 0x20, 0, 3);
    // Nothing more is scripted: the wait runs out, the interrupt ends it.
    const auto stop = f.stop();
    CHECK(stop.signal == rsp::Signal::interrupt);
    CHECK(stop.thread == 1);
    CHECK(f.inserted() == 1);
}

TEST_CASE("an interrupt is reported once, in whatever moment it comes") {
    for (const bool absorbed : {false, true}) {
        CAPTURE(absorbed);
        Fixture f;
        f.breakpoint(kernel_text + 0x20);
        REQUIRE(f.resume("c:1").has_value());
        // In the wait of the step over: the second one.
        f.fake.target->script({.cause = Cause::breakpoint, .vcpu = 0}, [&] {
            f.fake.target->set(0, x86::rip, kernel_text + 0x20);
            f.fake.switch_to(3, 0);
            f.fake.target->in_next_wait([&] {
                f.control.interrupt();
                if (absorbed) f.fake.target->absorb_interrupt();
            });
        });
        if (absorbed) f.script(Cause::step, 0, kernel_text + 0x21);
        const auto stop = f.stop();
        CHECK(stop.signal == rsp::Signal::interrupt);
        CHECK(stop.thread == 1);
        CHECK(f.inserted() == 1);
        f.log();
        REQUIRE(f.resume("c:1").has_value());
        f.script(Cause::step, 0, kernel_text, 0, 1);
        CHECK(f.stop().signal == rsp::Signal::trap);
    }
}

TEST_CASE("an interrupt while an unseen stop is dealt with") {
    Fixture f;
    REQUIRE(f.resume("c:1").has_value());
    // Between wait_for_stop() and the resume that follows: the target takes it for harmless.
    f.fake.target->script({.cause = Cause::step, .vcpu = 1});
    f.fake.kernel.on_look = [&] { f.control.interrupt(); };
    const auto stop = f.stop();
    CHECK(stop.signal == rsp::Signal::interrupt);
    CHECK(stop.thread == 1);
}

TEST_CASE("an interrupt of a machine that cannot run") {
    Fixture f{{.execution = false}};
    f.control.interrupt();
}

TEST_CASE("an interrupt from before the resume is not of this one") {
    Fixture f;
    f.control.interrupt();
    REQUIRE(f.resume("c").has_value());
    f.script(Cause::step, 0, kernel_text);
    CHECK(f.stop().signal == rsp::Signal::trap);
}

TEST_CASE("a stepped task that is switched away ends its step when it runs again") {
    Fixture f;
    REQUIRE(f.resume("s:1;c").has_value());
    f.log();
    f.script(Cause::step, 0, kernel_text + 0x50, stack2, 3);
    f.runs_on();
    CHECK(f.log() == Log{"insert software 0xffffffff81000100 1", "resume run run"});
    // Another task goes on there: stepped over, unseen.
    f.script(Cause::breakpoint, 0, wake, stack2);
    f.script(Cause::step, 0, wake + 1);
    f.runs_on();
    CHECK(f.log() == Log{"remove software 0xffffffff81000100 1", "resume step hold",
                         "insert software 0xffffffff81000100 1", "resume run run"});
    f.script(Cause::breakpoint, 1, wake, stack1, 1);
    const auto stop = f.stop();
    CHECK(stop.thread == 1);
    CHECK(stop.signal == rsp::Signal::trap);
    CHECK(stop.reason == Reason::none);
    REQUIRE(f.resume("c").has_value());
    CHECK(f.inserted() == 0);
}

TEST_CASE("a step within one task, over a change of stack") {
    Fixture f;
    REQUIRE(f.resume("s:1;c").has_value());
    f.script(Cause::step, 0, kernel_text + 0x50, stack1 + 0x40000);
    CHECK(f.stop().thread == 1);
    CHECK(f.inserted() == 0);
}

TEST_CASE("a sleeping task is met where it goes on") {
    Fixture f;
    REQUIRE(f.resume("s:3").has_value());
    CHECK(f.log() == Log{"insert software 0xffffffff81000100 1", "resume run run"});
    f.script(Cause::breakpoint, 0, wake, stack2, 3);
    CHECK(f.stop().thread == 3);
}

TEST_CASE("a client's breakpoint where a sleeping task goes on is hit by the others too") {
    Fixture f;
    f.breakpoint(wake);
    REQUIRE(f.resume("s:3;c").has_value());
    f.script(Cause::breakpoint, 0, wake);
    const auto stop = f.stop();
    CHECK(stop.thread == 1);
    CHECK(stop.reason == Reason::swbreak);
    REQUIRE(f.resume("c").has_value());
    CHECK(f.inserted() == 1);  // the client's stays
}

TEST_CASE("a task whose saved registers are unknown cannot be stepped, and nothing is left of the try") {
    Fixture f;
    CHECK_FALSE(f.resume("s:4;c").has_value());
    CHECK(f.log().empty());
    REQUIRE(f.resume("c").has_value());
    CHECK(f.inserted() == 0);
}

TEST_CASE("a resume that fails leaves no wake-up behind") {
    for (const auto* call : {"resume", "remove"}) {
        CAPTURE(std::string{call});
        Fixture f;
        f.breakpoint(kernel_text + 0x20);
        f.control.breakpoints.remove({BreakpointKind::software, VirtualAddress{kernel_text + 0x20}, 1});
        f.fake.target->fail(call, {Errc::backend, "scripted"});
        CHECK_FALSE(f.resume("s:3").has_value());
        REQUIRE(f.resume("c").has_value());
        CHECK(f.inserted() == 0);
    }
}

TEST_CASE("when somebody else's stop comes first the wake-up goes") {
    Fixture f;
    REQUIRE(f.resume("s:3;c").has_value());
    f.script(Cause::write_watch, 0, kernel_text);
    CHECK(f.stop().thread == 1);
    REQUIRE(f.resume("c").has_value());
    CHECK(f.inserted() == 0);
}

TEST_CASE("a sleeping and a running task stepped at once") {
    Fixture f;
    f.control.threads().put_first(3);
    REQUIRE(f.resume("s:3;s:1").has_value());
    CHECK(f.log() == Log{"insert software 0xffffffff81000100 1", "resume step hold"});
    f.script(Cause::step, 0, kernel_text + 1);
    CHECK(f.stop().thread == 1);
    REQUIRE(f.resume("c").has_value());
    CHECK(f.inserted() == 0);
}

TEST_CASE("range steps") {
    Fixture f;
    REQUIRE(f.resume("rffffffff81000010,ffffffff81000020:1;c").has_value());
    f.script(Cause::step, 0, kernel_text + 0x10);
    f.script(Cause::step, 0, kernel_text + 0x1f);
    f.runs_on();
    f.script(Cause::step, 0, kernel_text + 0x20);
    CHECK(f.stop().thread == 1);
    // An empty range is one step.
    REQUIRE(f.resume("r0,0:1").has_value());
    f.script(Cause::step, 0, kernel_text + 0x10);
    CHECK(f.stop().thread == 1);
    // A breakpoint in it.
    f.breakpoint(kernel_text + 0x18);
    REQUIRE(f.resume("rffffffff81000010,ffffffff81000020:1").has_value());
    f.script(Cause::step, 0, kernel_text + 0x18);
    CHECK(f.stop().reason == Reason::swbreak);
}

TEST_CASE("after the OS has come or gone no thread is another's") {
    Fixture f;
    f.fake.kernel.present = false;
    REQUIRE(f.fake.machine->look().has_value());
    f.control.fresh_threads();
    REQUIRE(f.control.threads().threads().size() == 2);  // vCPUs 1 and 2
    REQUIRE(f.resume("s:1").has_value());
    f.fake.kernel.present = true;
    f.fake.switch_to(3, 0);
    f.script(Cause::step, 0, kernel_text, stack2);
    CHECK(f.stop().thread == 3);  // not init, whose TID is 1
    CHECK(f.inserted() == 0);
}

TEST_CASE("the end of the guest, and of the client") {
    Fixture f;
    REQUIRE(f.resume("s:3").has_value());
    f.script(Cause::exited, 0, 0);
    CHECK(f.stop().exited);
    REQUIRE(f.resume("s:3").has_value());
    f.control.interrupt();
    f.control.forget();
    CHECK(f.control.breakpoints.all().empty());
    REQUIRE(f.fake.target->detach().has_value());
    REQUIRE(f.fake.target->attach().has_value());
    REQUIRE(f.resume("c").has_value());
    f.script(Cause::breakpoint, 0, wake, stack2);
    const auto stop = f.stop();
    CHECK(stop.signal == rsp::Signal::trap);
    CHECK(stop.thread == 1);
}
