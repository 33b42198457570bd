// Breakpoints whose hits are judged in the server, and how a vCPU gets past them.
#include "stub/conditions.h"

#include <doctest/doctest.h>

#include "tests/support/controlled.h"

using namespace exo;
using namespace exo::stub;
using namespace exo::test;
using Fixture = Controlled;

namespace {

constexpr std::uint64_t place = kernel_text + 0x20;
constexpr BreakpointKey at_place{BreakpointKind::software, VirtualAddress{place}, 1};
constexpr std::string_view never = ";X3,220027";

void put(Fixture& f, std::string_view program) {
    REQUIRE(f.control.breakpoints.insert(at_place));
    f.control.conditions.set(at_place,
                             std::get<rsp::BreakpointProgram>(rsp::BreakpointProgram::parse(program)));
}

}  // namespace

TEST_CASE("a target that steps with the breakpoint in place keeps it") {
    Fixture f{{.steps_in_place = true}};
    put(f, never);
    REQUIRE(f.resume("c"));
    f.log();
    f.script(Cause::breakpoint, 0, place);
    f.script(Cause::step, 0, place + 1);
    f.runs_on();
    CHECK(f.log() == Log{"resume step hold", "resume run run"});
}

TEST_CASE("a step that did not get past the breakpoint is made again without it") {
    Fixture f{{.steps_in_place = true}};
    put(f, never);
    REQUIRE(f.resume("c"));
    f.log();
    f.script(Cause::breakpoint, 0, place);
    f.script(Cause::step, 0, place);
    f.script(Cause::step, 0, place + 1);
    f.runs_on();
    CHECK(f.log() == Log{"resume step hold", "remove software 0xffffffff81000020 1", "resume step hold",
                         "insert software 0xffffffff81000020 1", "resume run run"});
}

TEST_CASE("what happens in a step over a false hit is told") {
    Fixture f{{.steps_in_place = true}};
    put(f, never);
    REQUIRE(f.resume("c"));
    f.script(Cause::breakpoint, 0, place);
    f.script(Cause::write_watch, 0, place + 1);
    CHECK(f.stop().reason == Reason::watch);
}

TEST_CASE("^C amid false hits is a stop") {
    Fixture f;
    put(f, never);
    REQUIRE(f.resume("c"));
    f.script(Cause::breakpoint, 0, place);
    f.control.interrupt();
    CHECK(f.stop().signal == rsp::Signal::interrupt);
}

TEST_CASE("filters by what a thread is") {
    struct Case {
        ThreadFilter filter;
        bool stops;
    };
    using By = ThreadFilter::By;
    for (const auto& [filter, stops] : std::initializer_list<Case>{{{By::tid, 1, {}}, true},
                                                                   {{By::tid, 2, {}}, false},
                                                                   {{By::pid, 1, {}}, true},
                                                                   {{By::pid, 3, {}}, false},
                                                                   {{By::comm, 0, "init"}, true},
                                                                   {{By::comm, 0, "ini"}, false}}) {
        CAPTURE(to_string(filter));
        Fixture f;
        put(f, {});
        f.control.conditions.set_filter(VirtualAddress{place}, filter);
        REQUIRE(f.resume("c"));
        f.script(Cause::breakpoint, 0, place);
        if (!stops) f.script(Cause::step, 0, place + 1);
        if (stops) {
            CHECK(f.stop().thread == 1);
        } else {
            f.runs_on();
            CHECK(f.control.conditions.passed().at(VirtualAddress{place}) == 1);
        }
    }
}

TEST_CASE("output is bounded, and what is lost is said") {
    Fixture f;
    put(f, ";cmds:0,X12,224122002200340100072534303936630027");  // printf("%4096c", 'A')
    REQUIRE(f.control.conditions.program(at_place) != nullptr);
    constexpr std::size_t hits = 300;
    const CurrentThread nobody = [] { return nullptr; };
    for (std::size_t hit = 0; hit < hits; ++hit)
        CHECK_FALSE(f.control.conditions.judge(0, VirtualAddress{place}, f.control.breakpoints, nobody));
    const std::string output = f.control.conditions.take_output();
    CHECK(output.size() < (1U << 20U) + 100);
    CHECK(output.ends_with("exogdb: 180224 bytes of output were lost here\n"));
    CHECK_FALSE(f.control.conditions.has_output());
}

TEST_CASE("conditions read and write trace state variables, where they are defined") {
    Fixture f;
    put(f, ";Xd,2c00012201022d000122021327");  // ($n = $n + 1) == 2
    const CurrentThread nobody = [] { return nullptr; };
    const auto judged = [&] {
        const auto key = f.control.conditions.judge(0, VirtualAddress{place}, f.control.breakpoints, nobody);
        return key ? std::optional{key->kind} : std::nullopt;
    };
    CHECK(judged() == BreakpointKind::software);
    CHECK(
        f.control.conditions.take_output() ==
        "exogdb: the condition of the breakpoint at 0xffffffff81000020: there is no trace state variable 0x1 "
        "(offset 0 of the agent expression)\n");
    f.control.trace_variables[1] = {.name = "n"};
    CHECK_FALSE(judged());
    CHECK(judged() == BreakpointKind::software);
    CHECK(f.control.trace_variables[1].value == 2);
}
