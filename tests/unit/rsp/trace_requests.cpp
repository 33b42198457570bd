#include "rsp/trace_requests.h"

#include <doctest/doctest.h>

using namespace exo::rsp;

namespace {

std::optional<DefineTracepoint> defined(std::string_view text) {
    auto result = DefineTracepoint::parse(text);
    if (auto* request = std::get_if<DefineTracepoint>(&result)) return std::move(*request);
    return std::nullopt;
}

}  // namespace

TEST_CASE("QTDP: the head of a tracepoint") {
    const auto request = defined("a:ffffffff81000180:D:0:14:X3,220127-");
    REQUIRE(request);
    CHECK(request->number == 10);
    CHECK(request->address == 0xffffffff81000180);
    REQUIRE(request->head);
    CHECK_FALSE(request->head->enabled);
    CHECK(request->head->pass_count == 20);
    CHECK(request->head->condition);
    CHECK(request->head->condition_text == "X3,220127");
    CHECK(request->actions.empty());
    for (const std::string_view text :
         {"", "1", "1:", "1:2", "1:2:", "1:2:E", "1:2:X:0:0", "1:2:E:0", "1:2:E:0:", "1:2:E:1:0",
          "1:2:E:0:0:F5", "1:2:E:0:0:S", "1:2:E:0:0:X3,2201", "1:2:E:0:0:X1,00", "1:2:E:0:0!",
          "80000000:2:E:0:0", "1:2:E:0:0--"}) {
        CAPTURE(text);
        CHECK_FALSE(defined(text));
    }
}

TEST_CASE("QTDP: what a tracepoint collects") {
    const auto request = defined("-1:10:R01ffM-1,ffff,8MFFFFFFFF,10,4M7,fffffffffffffff8,10X3,220127-");
    REQUIRE(request);
    CHECK_FALSE(request->head);
    REQUIRE(request->actions.size() == 5);
    CHECK(std::get<CollectRegisters>(request->actions[0]).text == "R01ff");
    CHECK_FALSE(std::get<CollectMemory>(request->actions[1]).base);
    CHECK(std::get<CollectMemory>(request->actions[1]).offset == 0xffff);
    CHECK_FALSE(std::get<CollectMemory>(request->actions[2]).base);
    const auto& based = std::get<CollectMemory>(request->actions[3]);
    CHECK(based.base == 7);
    CHECK(based.offset == 0xfffffffffffffff8);
    CHECK(based.length == 16);
    CHECK(based.text == "M7,fffffffffffffff8,10");
    CHECK(std::get<CollectByExpression>(request->actions[4]).text == "X3,220127");
    for (const std::string_view text :
         {"-1:10:R", "-1:10:Rg", "-1:10:M", "-1:10:M1", "-1:10:M1,2", "-1:10:M1,2,", "-1:10:M1,2,10001",
          "-1:10:X3,2201", "-1:10:SR1", "-1:10:Q", "-1:10"}) {
        CAPTURE(text);
        CHECK_FALSE(defined(text));
    }
}

TEST_CASE("QTFrame") {
    struct Row {
        std::string_view text;
        SelectTraceFrame::By by;
        std::uint64_t first, last;
    };
    using By = SelectTraceFrame::By;
    for (const auto& [text, by, first, last] :
         std::initializer_list<Row>{{"0", By::number, 0, 0},
                                    {"ff", By::number, 0xff, 0xff},
                                    {"ffffffff", By::none, 0, 0},
                                    {"-1", By::none, 0, 0},
                                    {"pc:ffffffff81000180", By::pc, 0xffffffff81000180, 0xffffffff81000180},
                                    {"tdp:2", By::tracepoint, 2, 2},
                                    {"range:1:2", By::range, 1, 2},
                                    {"outside:1:2", By::outside, 1, 2}}) {
        CAPTURE(text);
        const auto request = SelectTraceFrame::parse(text);
        REQUIRE(request);
        CHECK(request->by == by);
        CHECK(request->first == first);
        CHECK(request->last == last);
    }
    for (const std::string_view text :
         {"", "-2", "pc:", "pc:1:2", "tdp", "range:1", "range:1:", "outside:1,2", "1 "}) {
        CAPTURE(text);
        CHECK_FALSE(SelectTraceFrame::parse(text));
    }
}

TEST_CASE("the smaller trace packets") {
    const auto source = TracepointSource::parse("1:10:cmd:0:3:666f6f");
    REQUIRE(source);
    CHECK(source->text == "cmd:0:3:666f6f");
    const auto variable = DefineTraceVariable::parse("2:ffffffffffffffff:1:6e");
    REQUIRE(variable);
    CHECK(variable->value == ~std::uint64_t{0});
    CHECK(variable->builtin);
    CHECK(variable->name == "n");
    const auto ranges = ReadOnlyRanges::parse(":10,20:30,30");
    REQUIRE(ranges);
    CHECK(ranges->ranges.size() == 2);
    CHECK(ranges->ranges[0].end == 0x20);
    CHECK(TracepointId::parse("1:10")->address == 0x10);
    CHECK(ReadTraceBuffer::parse("10,ff")->length == 0xff);
    CHECK(TraceNumber::parse("1f")->number == 0x1f);
    for (const std::string_view text : {"", "1", "1:", ":1", "1:10:", "x:1"}) {
        CAPTURE(text);
        CHECK_FALSE(TracepointId::parse(text));
        CHECK_FALSE(TracepointSource::parse(text));
        CHECK_FALSE(DefineTraceVariable::parse(text));
    }
    for (const std::string_view text : {":", ":1", ":1,", ":2,1", ":1,2,", "1,2"}) {
        CAPTURE(text);
        CHECK_FALSE(ReadOnlyRanges::parse(text));
    }
    CHECK_FALSE(TracepointSource::parse("1:10::0:3:66"));
    CHECK_FALSE(ReadTraceBuffer::parse("10"));
    CHECK_FALSE(TraceNumber::parse(""));
}
