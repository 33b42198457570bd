#include "rsp/thread_id.h"

#include <doctest/doctest.h>

using namespace exo::rsp;

namespace {

std::string print(ThreadId id, bool multiprocess) {
    std::string out;
    append_thread_id(out, id, multiprocess);
    return out;
}

}  // namespace

TEST_CASE("thread ids without a process") {
    CHECK(parse_thread_id("2f") == ThreadId{ThreadId::any, 0x2f});
    CHECK(parse_thread_id("0001") == ThreadId{ThreadId::any, 1});  // lldb's
    CHECK(parse_thread_id("0") == ThreadId{ThreadId::any, ThreadId::any});
    CHECK(parse_thread_id("-1") == ThreadId{ThreadId::any, ThreadId::all});
    CHECK(parse_thread_id("7fffffffffffffff") == ThreadId{ThreadId::any, 0x7fffffffffffffff});
}

TEST_CASE("thread ids with a process") {
    CHECK(parse_thread_id("p1.2") == ThreadId{1, 2});
    CHECK(parse_thread_id("p400001.a") == ThreadId{0x400001, 0xa});
    CHECK(parse_thread_id("p1.-1") == ThreadId{1, ThreadId::all});
    CHECK(parse_thread_id("p1") == ThreadId{1, ThreadId::all});
    CHECK(parse_thread_id("p0.0") == ThreadId{ThreadId::any, ThreadId::any});
    CHECK(parse_thread_id("p-1.-1") == ThreadId{ThreadId::all, ThreadId::all});
    CHECK(parse_thread_id("p-1") == ThreadId{ThreadId::all, ThreadId::all});
}

TEST_CASE("what is no thread id") {
    for (const char* text : {"", "p", "p.", "p1.", "p.1", "p1.2.3", "p1,2", "-2", "--1", "-", "x", "1p", " 1",
                             "p-1.5", "8000000000000000", "p8000000000000000.1", "00000000000000001", "1;"}) {
        CAPTURE(text);
        CHECK_FALSE(parse_thread_id(text));
    }
}

TEST_CASE("thread ids are printed in the client's form") {
    CHECK(print({1, 0x2f}, true) == "p1.2f");
    CHECK(print({1, 0x2f}, false) == "2f");
    CHECK(print({1, ThreadId::all}, true) == "p1.-1");
    CHECK(print({ThreadId::all, ThreadId::all}, true) == "p-1.-1");
    CHECK(print({ThreadId::any, ThreadId::any}, true) == "p0.0");
    CHECK(print({ThreadId::any, ThreadId::all}, false) == "-1");
}
