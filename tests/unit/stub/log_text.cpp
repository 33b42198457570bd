#include "stub/log_text.h"

#include <doctest/doctest.h>

using namespace exo;

namespace {

std::string shown(std::string text, std::uint64_t time = 1'234'567'891) {
    os::LogRecord record;
    record.time_ns = time;
    record.text = std::move(text);
    return stub::log_text({&record, 1});
}

}  // namespace

TEST_CASE("a line of the log is as dmesg prints it") {
    CHECK(shown("text") == "[    1.234567] text\n");
    CHECK(shown("", 0) == "[    0.000000] \n");
    CHECK(shown("late", 123'456'000'001'000) == "[123456.000001] late\n");
    CHECK(shown("tab\there") == "[    1.234567] tab\there\n");
}

TEST_CASE("further lines of a record are below its first") {
    CHECK(shown("one\ntwo") == "[    1.234567] one\n               two\n");
}

TEST_CASE("what is not printable is escaped") {
    CHECK(shown("\x1b[31mred\x7f\r") == "[    1.234567] \\x1b[31mred\\x7f\\x0d\n");
    CHECK(shown(std::string{"nul\0", 4}) == "[    1.234567] nul\\x00\n");
    CHECK(shown("\xc3\xbc \xe2\x82\xac \xf0\x9f\x90\xa7") ==
          "[    1.234567] \xc3\xbc \xe2\x82\xac \xf0\x9f\x90\xa7\n");
    SUBCASE("what is no UTF-8, or a control character of it") {
        for (const auto* wrong : {"\xc2\x9b", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                  "\xff", "\x80", "\xc3"}) {
            const auto text = shown(wrong);
            CHECK_MESSAGE(text.starts_with("[    1.234567] \\x"), text);
            for (const char c : text) CHECK(static_cast<unsigned char>(c) < 0x80);
        }
    }
}

TEST_CASE("the log as JSON") {
    os::KernelLog log;
    log.records.push_back({.time_ns = 5,
                           .sequence = 7,
                           .level = 6,
                           .facility = 3,
                           .caller = os::LogRecord::Caller{true, 1},
                           .text = "a\nb\x1b"});
    log.missing.emplace_back("1 record: being written");
    CHECK(stub::log_json(log) ==
          R"({"records":[{"time_ns":5,"sequence":7,"level":6,"facility":3,"text":"a\nb\\x1b","cpu":1}],)"
          R"("missing":["1 record: being written"]})"
          "\n");
}
