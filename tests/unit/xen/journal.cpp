#include "backends/xen/journal.h"

#include <doctest/doctest.h>

#include "backends/xen/domain.h"

using namespace exo;
using namespace exo::xen;

namespace {

JournalEntry example() {
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
    const auto read = parse_journal(to_text(example()));
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
    auto entry = example();
    entry.domain = 0;
    CHECK_FALSE(parse_journal(to_text(entry)));
}

TEST_CASE("xen: uuids as the toolstack writes them") {
    xen_domain_handle_t handle{};
    for (std::size_t i = 0; i < sizeof handle; ++i) handle[i] = static_cast<std::uint8_t>(i * 17);
    CHECK(to_text(handle) == "00112233-4455-6677-8899-aabbccddeeff");
}

TEST_CASE("xen: what a domain's state means") {
    xc_dominfo_t info{};
    info.hvm = 1;
    info.arch_config.emulation_flags = XEN_X86_EMU_LAPIC;
    CHECK(kind_of(info) == "PVH");
    CHECK(state_of(info) == "running");
    info.blocked = 1;
    CHECK(state_of(info) == "blocked");
    info.paused = 1;
    CHECK(state_of(info) == "paused");
    CHECK(condition_of(info) == Condition::none);
    info.shutdown = 1;
    info.shutdown_reason = SHUTDOWN_suspend;
    CHECK(condition_of(info) == Condition::suspended);
    info.shutdown_reason = SHUTDOWN_crash;
    CHECK(condition_of(info) == Condition::crashed);
    info.shutdown_reason = SHUTDOWN_reboot;
    CHECK(condition_of(info) == Condition::gone);
    info.shutdown = 0;
    info.dying = 1;
    CHECK(state_of(info) == "dying");
    info = {};
    CHECK(kind_of(info) == "PV");
}
