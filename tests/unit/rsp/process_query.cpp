#include "rsp/process_query.h"

#include <doctest/doctest.h>

using namespace exo::rsp;
using Match = ProcessQuery::Match;

TEST_CASE("a query asks for all, for a name or for a PID") {
    const auto all = ProcessQuery::parse("");
    REQUIRE(all);
    CHECK(all->matches_name("sshd"));
    CHECK_FALSE(all->pid);
    const auto named = ProcessQuery::parse(":name_match:equals;name:73736864;all_users:1;triple:7838;");
    REQUIRE(named);
    CHECK(named->name == "sshd");
    CHECK(named->matches_name("sshd"));
    CHECK_FALSE(named->matches_name("sshd2"));
    const auto one = ProcessQuery::parse(":pid:42;");
    REQUIRE(one);
    CHECK(one->pid == 42U);
}

TEST_CASE("names match in the ways of lldb") {
    struct Case {
        const char *how, *of;
        bool matches;
    };
    for (const Case& c : {Case{"equals", "ssh", true}, Case{"equals", "sshd", false},
                          Case{"starts_with", "sshd", true}, Case{"starts_with", "xssh", false},
                          Case{"ends_with", "xssh", true}, Case{"ends_with", "sshd", false},
                          Case{"contains", "xsshd", true}, Case{"contains", "shs", false}}) {
        CAPTURE(std::string{c.how});
        CAPTURE(std::string{c.of});
        const auto query = ProcessQuery::parse(":name_match:" + std::string{c.how} + ";name:737368;");
        REQUIRE(query);
        CHECK(query->matches_name(c.of) == c.matches);
    }
}

TEST_CASE("what is no query is refused") {
    for (const char* text : {"x", ":pid:42", ":pid:;", ":pid:4x;", ":pid:-1;", ":name:7;", ":name:zz;",
                             ":name_match:regex;name:2e;", ":name_match:;", ":pid", ";"}) {
        CAPTURE(std::string{text});
        CHECK_FALSE(ProcessQuery::parse(text));
    }
}
