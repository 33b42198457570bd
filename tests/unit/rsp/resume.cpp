#include <doctest/doctest.h>

#include "rsp/requests.h"

using namespace exo::rsp;

namespace {

using ActionKind = ResumeAction::Kind;

constexpr ThreadId everything{ThreadId::all, ThreadId::all};

void check(const ResumeAction& action, ActionKind kind, ThreadId thread, std::uint8_t signal = 0) {
    CHECK(action.kind == kind);
    CHECK(action.thread == thread);
    CHECK(action.signal == signal);
}

}  // namespace

TEST_CASE("vCont: one action for all") {
    const auto request = Resume::parse("c");
    REQUIRE(request);
    REQUIRE(request->actions.size() == 1);
    check(request->actions[0], ActionKind::go_on, everything);
    CHECK(Resume::parse(";c"));  // the ';' may be left on
}

TEST_CASE("vCont: actions keep their order") {
    const auto request = Resume::parse("s:p1.2;c:p1.-1;C05;S0b:1;t:p2");
    REQUIRE(request);
    REQUIRE(request->actions.size() == 5);
    check(request->actions[0], ActionKind::step, {1, 2});
    check(request->actions[1], ActionKind::go_on, {1, ThreadId::all});
    check(request->actions[2], ActionKind::go_on, everything, 5);
    check(request->actions[3], ActionKind::step, {ThreadId::any, 1}, 0xb);
    check(request->actions[4], ActionKind::stop, {2, ThreadId::all});
}

TEST_CASE("vCont: a range step") {
    const auto request = Resume::parse("rffffffff81000000,ffffffff81000010:p1.1;c");
    REQUIRE(request);
    REQUIRE(request->actions.size() == 2);
    check(request->actions[0], ActionKind::range_step, {1, 1});
    CHECK(request->actions[0].range_start == 0xffffffff81000000);
    CHECK(request->actions[0].range_end == 0xffffffff81000010);
    check(request->actions[1], ActionKind::go_on, everything);
}

TEST_CASE("vCont: lldb pads its thread ids") {
    const auto request = Resume::parse("s:0001");
    REQUIRE(request);
    check(request->actions[0], ActionKind::step, {ThreadId::any, 1});
}

TEST_CASE("vCont: what is malformed") {
    for (const char* text :
         {"",     ";",   "c;", "c;;s", "x",   "cc",  "c:",   "c:;s",   "c:p1.1:2", "c 1", "C", "S",
          "C100", "Cxx", "r",  "r1",   "r1,", "r,1", "r1;2", "r1,2,3", "c:zz",     "?",   "t5"}) {
        CAPTURE(text);
        CHECK_FALSE(Resume::parse(text));
    }
}

TEST_CASE("vCont: the number of actions is bounded") {
    std::string text = "c";
    while (text.size() < 2 * 65536 - 1) text += ";c";
    REQUIRE(Resume::parse(text));
    CHECK(Resume::parse(text)->actions.size() == 65536);
    CHECK_FALSE(Resume::parse(text + ";c"));
}

TEST_CASE("c, s, C and S") {
    std::optional<std::uint64_t> from = 1;
    auto request = Resume::parse_old('c', "", from);
    REQUIRE(request);
    REQUIRE(request->actions.size() == 1);
    check(request->actions[0], ActionKind::go_on, everything);
    CHECK_FALSE(from);

    request = Resume::parse_old('s', "ffffffff81000000", from);
    REQUIRE(request);
    check(request->actions[0], ActionKind::step, everything);
    CHECK(from == 0xffffffff81000000);

    request = Resume::parse_old('C', "05", from);
    REQUIRE(request);
    check(request->actions[0], ActionKind::go_on, everything, 5);
    CHECK_FALSE(from);

    request = Resume::parse_old('S', "0b;1000", from);
    REQUIRE(request);
    check(request->actions[0], ActionKind::step, everything, 0xb);
    CHECK(from == 0x1000);
}

TEST_CASE("c, s, C and S: what is malformed") {
    std::optional<std::uint64_t> from;
    CHECK_FALSE(Resume::parse_old('c', "x", from));
    CHECK_FALSE(Resume::parse_old('s', ";1", from));
    CHECK_FALSE(Resume::parse_old('C', "", from));
    CHECK_FALSE(Resume::parse_old('C', "100", from));
    CHECK_FALSE(Resume::parse_old('C', "05;", from));
    CHECK_FALSE(Resume::parse_old('C', "05;x", from));
    CHECK_FALSE(Resume::parse_old('S', "05 1000", from));
    CHECK_FALSE(Resume::parse_old('t', "", from));
    CHECK_FALSE(from);
}
