// Hits that are judged while the other vCPUs run.
#include <doctest/doctest.h>

#include "tests/support/controlled.h"

using namespace exo;
using namespace exo::stub;
using namespace exo::test;

namespace {

constexpr std::uint64_t hit_place = kernel_text + 0x20;
constexpr BreakpointKey at_hit{BreakpointKind::software, VirtualAddress{hit_place}, 1};
constexpr std::string_view is_false = ";X3,220027";
constexpr std::string_view is_true = ";X3,220127";
constexpr std::string_view prints_x = ";cmds:0,Xb,2200220034000002780027";  // printf("x")

// A breakpoint at a NOP that vCPU 0 hits.
struct Hit : Controlled {
    explicit Hit(std::string_view program, std::byte code = std::byte{0x90}) : Controlled{{.judges = true}} {
        fake.target->ram().at(0x20, 1)[0] = code;
        REQUIRE(control.breakpoints.insert(at_hit));
        control.conditions.set(at_hit,
                               std::get<rsp::BreakpointProgram>(rsp::BreakpointProgram::parse(program)));
    }
    void come(std::string_view actions = "c") {
        REQUIRE(resume(actions));
        log();
        script(Cause::breakpoint, 0, hit_place);
    }
    [[nodiscard]] std::uint64_t passed() const {
        const auto& all = control.conditions.passed();
        return all.contains(VirtualAddress{hit_place}) ? all.at(VirtualAddress{hit_place}) : 0;
    }
};

}  // namespace

TEST_CASE("at a NOP the others run on") {
    Hit f{is_false};
    f.come();
    f.runs_on();
    CHECK(f.log() == Log{"write_registers 0 rip=0xffffffff81000021", "vCPU 0 goes on"});
    CHECK(f.passed() == 1);
    CHECK(f.fake.target->registers(0).get(x86::rip) == hit_place + 1);
}

TEST_CASE("at another instruction all are stopped, and nothing is judged twice") {
    Hit f{prints_x, std::byte{0x55}};
    f.come();
    f.script(Cause::step, 0, hit_place + 1);
    f.runs_on();
    CHECK(f.passed() == 1);
    CHECK(f.control.conditions.take_output() == "x");
}

TEST_CASE("a condition that holds stops all") {
    Hit f{is_true};
    f.come();
    CHECK(f.stop().reason == Reason::swbreak);
    CHECK_FALSE(f.fake.target->is_running());
    CHECK(f.passed() == 0);
}

TEST_CASE("the hits of others than a filter takes") {
    Hit f{{}};
    f.control.conditions.set_filter(VirtualAddress{hit_place}, {ThreadFilter::By::tid, 2, {}});
    f.come();
    f.runs_on();
    CHECK(f.log() == Log{"write_registers 0 rip=0xffffffff81000021", "vCPU 0 goes on"});
    f.script(Cause::breakpoint, 1, hit_place);
    CHECK(f.stop().thread == 2);
}

TEST_CASE("a breakpoint with neither is not looked at twice") {
    Hit f{{}};
    f.come();
    CHECK(f.stop().thread == 1);
}

TEST_CASE("nothing is judged while the task on that vCPU was not resumed") {
    Hit f{is_false};
    f.come("c:p500000.3");  // all vCPUs run, for its sake
    f.runs_on();
    CHECK(f.passed() == 1);
    CHECK(f.log().back() == "resume run run");
}

TEST_CASE("after the stop nobody is asked any more") {
    Hit f{is_true};
    f.come();
    CHECK(f.fake.target->has_judge());
    f.stop();
    CHECK_FALSE(f.fake.target->has_judge());
}
