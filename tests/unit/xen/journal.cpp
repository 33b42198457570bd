#include "backends/xen/journal.h"

#include <doctest/doctest.h>

using namespace exo;
using namespace exo::xen;

namespace {

JournalEntry example_entry() {
    return {.target = "xen:debian",
            .name = "debian",
            .domain = 7,
            .uuid = "01234567-89ab-cdef-0123-456789abcdef",
            .owner_pid = 4711,
            .owner_start = 99,
            .holds = true};
}

}  // namespace

TEST_CASE("xen journal: what is written is what is read") {
    const auto read = parse_journal(to_text(example_entry()));
    REQUIRE(read);
    CHECK(read->target == "xen:debian");
    CHECK(read->name == "debian");
    CHECK(read->is_of(7, "01234567-89ab-cdef-0123-456789abcdef"));
    CHECK_FALSE(read->is_of(7, "00000000-89ab-cdef-0123-456789abcdef"));
    CHECK(read->owner_pid == 4711);
    CHECK(read->owner_start == 99);
    CHECK(read->holds);
}

TEST_CASE("xen journal: what makes no sense is none") {
    for (const char* text : {"", "[]", "{}", R"({"domain": 7})", R"({"domain": 0, "uuid": "x"})",
                             R"({"domain": 7, "uuid": "../../../../../../../../etc/passwd........"})"})
        CHECK_FALSE(parse_journal(text));
    auto entry = example_entry();
    entry.domain = 0;
    CHECK_FALSE(parse_journal(to_text(entry)));
}
