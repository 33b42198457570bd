#include "stub/breakpoint_table.h"

#include <doctest/doctest.h>

#include "tests/support/fake_machine.h"

using namespace exo;
using namespace exo::stub;
using exo::test::FakeMachine;
using exo::test::FakeMachineShape;
using exo::test::Log;

namespace {

constexpr VirtualAddress here{0xffffffff81001000};
constexpr VirtualAddress there{0xffffffff81002000};
constexpr BreakpointKey soft{BreakpointKind::software, here, 1};
constexpr BreakpointKey hard{BreakpointKind::hardware, here, 1};
constexpr BreakpointKey watch{BreakpointKind::write_watch, here, 8};

struct TableFixture {
    explicit TableFixture(FakeMachineShape shape = {}, bool with_os = true)
        : fake(std::move(shape)), table(*fake.machine) {
        if (with_os) fake.add_task(1, "init", 0);
        REQUIRE(fake.machine->look().has_value());
    }
    Log log() { return fake.target->take_log(); }
    [[nodiscard]] std::size_t inserted() const { return fake.target->inserted().size(); }
    [[nodiscard]] const BreakpointState& state(const BreakpointKey& key) const { return table.all().at(key); }

    FakeMachine fake;
    BreakpointTable table;
};

}  // namespace

TEST_CASE("an insertion takes effect at once, a removal at the next resume") {
    TableFixture f;
    REQUIRE(f.table.insert(soft).has_value());
    REQUIRE(f.table.insert(soft).has_value());
    CHECK(f.log() == Log{"insert software 0xffffffff81001000 1"});
    f.table.remove(soft);
    CHECK_FALSE(f.table.client_breakpoint_at(here).has_value());
    CHECK(f.inserted() == 1);
    REQUIRE(f.table.insert(soft).has_value());
    REQUIRE(f.table.settle().has_value());
    CHECK(f.log().empty());
    f.table.remove(soft);
    f.table.remove(soft);
    REQUIRE(f.table.settle().has_value());
    CHECK(f.log() == Log{"remove software 0xffffffff81001000 1"});
    CHECK(f.table.all().empty());
}

TEST_CASE("one insertion of the client's is one removal, in whatever number they come") {
    TableFixture f;
    REQUIRE(f.table.insert(soft).has_value());
    REQUIRE(f.table.insert(soft).has_value());
    f.table.remove(soft);
    REQUIRE(f.table.settle().has_value());
    CHECK(f.inserted() == 0);
    f.table.remove(watch);  // never inserted
    REQUIRE(f.table.insert(watch).has_value());
    f.table.remove_all();
    REQUIRE(f.table.settle().has_value());
    CHECK(f.inserted() == 0);
}

TEST_CASE("run control's own stays while the client's comes and goes") {
    TableFixture f;
    REQUIRE(f.table.insert_internal(here).has_value());
    CHECK(f.table.any_at(here));
    CHECK_FALSE(f.table.client_breakpoint_at(here).has_value());
    REQUIRE(f.table.insert(soft).has_value());
    CHECK(f.table.client_breakpoint_at(here) == BreakpointKind::software);
    f.table.remove(soft);
    REQUIRE(f.table.settle().has_value());
    CHECK(f.inserted() == 1);
    f.table.remove_internal(here);
    f.table.remove_internal(there);
    REQUIRE(f.table.settle().has_value());
    CHECK(f.inserted() == 0);
    CHECK(f.log() == Log{"insert software 0xffffffff81001000 1", "remove software 0xffffffff81001000 1"});
}

TEST_CASE("int3, then a debug register, then pending; tried again at each resume") {
    TableFixture f{{.debug_registers = 1}};
    f.fake.target->unmap_for_breakpoints(here);
    f.fake.target->unmap_for_breakpoints(there);
    REQUIRE(f.table.insert(soft).has_value());
    CHECK(f.state(soft).armed == BreakpointKind::hardware);
    const BreakpointKey second{BreakpointKind::software, there, 1};
    REQUIRE(f.table.insert(second).has_value());
    CHECK_FALSE(f.state(second).armed.has_value());
    CHECK(f.state(second).pending_reason ==
          "0xffffffff81002000 is not mapped; all debug registers are taken");
    CHECK(f.table.client_breakpoint_at(there) == BreakpointKind::software);
    CHECK_FALSE(f.table.any_at(there));

    REQUIRE(f.table.settle().has_value());
    CHECK_FALSE(f.state(second).armed.has_value());
    f.fake.target->unmap_for_breakpoints(there, false);
    REQUIRE(f.table.settle().has_value());
    CHECK(f.state(second).armed == BreakpointKind::software);
    CHECK(f.state(second).pending_reason.empty());
    // One that is pending and removed leaves no trace.
    f.fake.target->unmap_for_breakpoints(VirtualAddress{0x3000});
    const BreakpointKey third{BreakpointKind::software, VirtualAddress{0x3000}, 1};
    REQUIRE(f.table.insert(third).has_value());
    f.table.remove(third);
    REQUIRE(f.table.settle().has_value());
    CHECK_FALSE(f.table.all().contains(third));
}

TEST_CASE("in debug registers alone: one more than there are waits, and run control's own is refused") {
    TableFixture f{{.debug_registers = 1}};
    BreakpointTable table{*f.fake.machine, true};
    REQUIRE(table.insert(soft).has_value());
    CHECK(table.all().at(soft).armed == BreakpointKind::hardware);
    const BreakpointKey second{BreakpointKind::software, there, 1};
    REQUIRE(table.insert(second).has_value());
    CHECK(table.all().at(second).pending_reason == "all debug registers are taken");
    const auto refused = table.insert_internal(VirtualAddress{0x3000});
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error().code == Errc::no_free_slot);
    table.remove(soft);
    REQUIRE(table.settle().has_value());
    CHECK(table.all().at(second).armed == BreakpointKind::hardware);
    CHECK(f.inserted() == 1);
    for (const auto& line : f.log()) CHECK_FALSE(line.find("software") != std::string::npos);
}

TEST_CASE("before there is a kernel a debug register comes first") {
    TableFixture f{{.debug_registers = 1}, false};
    REQUIRE(f.table.insert(soft).has_value());
    CHECK(f.state(soft).armed == BreakpointKind::hardware);
    const BreakpointKey second{BreakpointKind::software, there, 1};
    REQUIRE(f.table.insert(second).has_value());
    CHECK(f.state(second).armed == BreakpointKind::software);
}

TEST_CASE("Z0 as a debug register and Z1 at one address are one in the machine") {
    TableFixture f{{}, false};
    REQUIRE(f.table.insert(soft).has_value());
    REQUIRE(f.table.insert(hard).has_value());
    CHECK(f.log() == Log{"insert hardware 0xffffffff81001000 1"});
    f.table.remove(soft);
    REQUIRE(f.table.settle().has_value());
    CHECK(f.inserted() == 1);
    CHECK(f.table.any_at(here));
    REQUIRE(f.table.lift(here).has_value());
    CHECK(f.inserted() == 0);
    REQUIRE(f.table.put_back(here).has_value());
    CHECK(f.inserted() == 1);
    f.table.remove(hard);
    REQUIRE(f.table.settle().has_value());
    CHECK(f.inserted() == 0);
}

TEST_CASE("what is no software breakpoint and fails is refused, and not kept") {
    TableFixture f{{.debug_registers = 0}};
    CHECK(f.table.insert(watch).error().code == Errc::no_free_slot);
    CHECK(f.table.insert(hard).error().code == Errc::no_free_slot);
    CHECK(f.table.all().empty());
}

TEST_CASE("a target that is gone is an error for software breakpoints too") {
    TableFixture f;
    f.fake.target->fail("insert", {Errc::target_gone, "gone"});
    CHECK(f.table.insert(soft).error().code == Errc::target_gone);
    CHECK(f.table.all().empty());
}

TEST_CASE("kinds") {
    TableFixture f{{.kinds = {BreakpointKind::hardware}}};
    CHECK(f.table.supports(BreakpointKind::hardware));
    CHECK(f.table.supports(BreakpointKind::software));  // as a hardware one
    CHECK_FALSE(f.table.supports(BreakpointKind::write_watch));
    REQUIRE(f.table.insert(soft).has_value());
    CHECK(f.log() == Log{"insert hardware 0xffffffff81001000 1"});
    TableFixture none{{.breakpoints = false}};
    CHECK_FALSE(none.table.supports(BreakpointKind::software));
    CHECK(none.table.insert(hard).error().code == Errc::unsupported);
}

TEST_CASE("a removal that fails is tried again at the next resume") {
    TableFixture f;
    REQUIRE(f.table.insert(soft).has_value());
    f.table.remove(soft);
    f.fake.target->fail("remove", {Errc::backend, "no"});
    CHECK_FALSE(f.table.settle().has_value());
    CHECK(f.table.any_at(here));
    CHECK(f.inserted() == 1);
    REQUIRE(f.table.settle().has_value());
    CHECK(f.inserted() == 0);
}

TEST_CASE("lift and put back, with failures") {
    TableFixture f;
    REQUIRE(f.table.insert(soft).has_value());
    REQUIRE(f.table.insert(hard).has_value());
    const BreakpointKey elsewhere{BreakpointKind::software, there, 1};
    REQUIRE(f.table.insert(elsewhere).has_value());
    REQUIRE(f.table.insert(watch).has_value());  // at the same address, but of data
    REQUIRE(f.table.lift(here).has_value());
    CHECK(f.inserted() == 2);
    CHECK_FALSE(f.table.any_at(here));
    CHECK(f.table.any_at(there));
    CHECK(f.table.client_breakpoint_at(here).has_value());
    f.fake.target->fail("insert", {Errc::backend, "no"}, 2);  // as int3 and as a debug register
    CHECK_FALSE(f.table.put_back(here).has_value());
    REQUIRE(f.table.settle().has_value());
    CHECK(f.inserted() == 4);
    // One that was removed meanwhile does not come back.
    REQUIRE(f.table.lift(here).has_value());
    f.table.remove(soft);
    f.table.remove(hard);
    REQUIRE(f.table.put_back(here).has_value());
    CHECK_FALSE(f.table.any_at(here));
}

TEST_CASE("after a detach nothing is left, and memory is as it was") {
    TableFixture f{{.int3_in_memory = true}};
    f.fake.target->ram().at(0x1000, 1)[0] = std::byte{0x55};
    REQUIRE(f.table.insert(soft).has_value());
    CHECK(f.fake.target->ram().at(0x1000, 1)[0] == std::byte{0xcc});
    CHECK(f.fake.machine->clean_memory().hides(PhysicalAddress{0x1000}));
    REQUIRE(f.fake.target->detach().has_value());
    f.table.forget();
    CHECK(f.table.all().empty());
    CHECK_FALSE(f.fake.machine->clean_memory().hides(PhysicalAddress{0x1000}));
    CHECK(f.fake.target->ram().at(0x1000, 1)[0] == std::byte{0x55});
}

TEST_CASE("one that is pending or a debug register hides nothing") {
    TableFixture f{{.int3_in_memory = true}};
    f.fake.target->unmap_for_breakpoints(here);
    REQUIRE(f.table.insert(soft).has_value());
    CHECK(f.state(soft).armed == BreakpointKind::hardware);
    CHECK_FALSE(f.fake.machine->clean_memory().hides(PhysicalAddress{0x1000}));
}

TEST_CASE("a watchpoint takes as many debug registers as cover it exactly") {
    TableFixture f{{.aligned_watch = true}};
    const BreakpointKey odd{BreakpointKind::write_watch, here + 1, 7};
    REQUIRE(f.table.insert(odd).has_value());
    CHECK(f.log() == Log{"insert write_watch 0xffffffff81001001 7 failed: no debug register watches that",
                         "insert write_watch 0xffffffff81001001 1", "insert write_watch 0xffffffff81001002 2",
                         "insert write_watch 0xffffffff81001004 4"});
    CHECK(f.table.watched_by_client(here + 4) == std::vector{odd});
    CHECK(f.table.watched_by_client(here + 7) == std::vector{odd});
    CHECK(f.table.watched_by_client(here + 8).empty());
    CHECK(f.table.watched_by_client(here).empty());
    f.table.remove(odd);
    REQUIRE(f.table.settle().has_value());
    CHECK(f.inserted() == 0);
}

TEST_CASE("a part that another watchpoint has too is there once, and until both are gone") {
    TableFixture f{{.aligned_watch = true}};
    const BreakpointKey wide{BreakpointKind::access_watch, here, 16};
    const BreakpointKey part{BreakpointKind::access_watch, here + 8, 8};
    REQUIRE(f.table.insert(wide).has_value());
    REQUIRE(f.table.insert(part).has_value());
    CHECK(f.inserted() == 2);
    f.table.remove(wide);
    REQUIRE(f.table.settle().has_value());
    CHECK(f.inserted() == 1);
    f.table.remove(part);
    REQUIRE(f.table.settle().has_value());
    CHECK(f.inserted() == 0);
}

TEST_CASE("a watchpoint for which the debug registers do not suffice leaves nothing behind, and says why") {
    TableFixture f{{.aligned_watch = true}};
    REQUIRE(f.table.insert({BreakpointKind::write_watch, there, 16}).has_value());
    const auto three = f.table.insert({BreakpointKind::write_watch, here, 24});
    REQUIRE_FALSE(three.has_value());
    CHECK(three.error().code == Errc::no_free_slot);
    CHECK(three.error().message.find("24 bytes at 0xffffffff81001000 takes 3 debug registers") == 9);
    CHECK(f.inserted() == 2);
    const auto many = f.table.insert({BreakpointKind::write_watch, here, 0xffffffff});
    REQUIRE_FALSE(many.has_value());
    CHECK(many.error().code == Errc::no_free_slot);
    CHECK(f.table.all().size() == 1);
}

TEST_CASE("what was put in for no kernel is put in anew for one, and the other way round") {
    TableFixture f{{}, false};
    REQUIRE(f.table.insert(soft).has_value());
    CHECK(f.log() == Log{"insert hardware 0xffffffff81001000 1"});
    f.fake.add_task(1, "init", 0);
    REQUIRE(f.fake.machine->look().has_value());
    REQUIRE(f.table.settle().has_value());
    CHECK(f.log() == Log{"remove hardware 0xffffffff81001000 1", "insert software 0xffffffff81001000 1"});
    f.fake.kernel.present = false;
    REQUIRE(f.fake.machine->look().has_value());
    REQUIRE(f.table.settle().has_value());
    CHECK(f.log() == Log{"remove software 0xffffffff81001000 1", "insert hardware 0xffffffff81001000 1"});
}

TEST_CASE("a breakpoint that waits is news once, and worth a try when its page is there") {
    TableFixture f{{.debug_registers = 0}};
    f.fake.target->unmap_for_breakpoints(here);
    REQUIRE(f.table.insert(soft).has_value());
    REQUIRE(f.table.settle().has_value());
    const auto news = f.table.take_news();
    REQUIRE(news.size() == 1);
    CHECK(news[0].find("the breakpoint at 0xffffffff81001000 is pending: ") == 0);
    REQUIRE(f.table.settle().has_value());
    CHECK(f.table.take_news().empty());
    CHECK(f.table.worth_another_try());  // the fake kernel maps all of its text
    f.table.remove(soft);
    CHECK_FALSE(f.table.worth_another_try());
}
