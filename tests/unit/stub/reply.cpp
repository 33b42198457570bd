#include "stub/reply.h"

#include <array>

#include <doctest/doctest.h>

using namespace exo;
using namespace exo::stub;

// Numbers are hex (GDB manual, "Standard Replies"), and gdb shows them to the user as they are.
TEST_CASE("each code has its errno") {
    struct Case {
        Errc code;
        const char* reply;
    };
    constexpr std::array cases{
        Case{Errc::bad_request, "E16"},     // EINVAL 22
        Case{Errc::bad_address, "E0e"},     // EFAULT 14
        Case{Errc::no_such_thread, "E03"},  // ESRCH 3
        Case{Errc::denied, "E0d"},          // EACCES 13
        Case{Errc::no_free_slot, "E1c"},    // ENOSPC 28
        Case{Errc::timed_out, "E6e"},       // ETIMEDOUT 110
        Case{Errc::busy, "E10"},            // EBUSY 16
        Case{Errc::not_found, "E02"},       // ENOENT 2
        Case{Errc::bad_data, "E05"},        // EIO 5
        Case{Errc::unsupported, "E26"},     // ENOSYS 38
        Case{Errc::backend, "E05"},         // EIO 5
        Case{Errc::target_gone, "E13"},     // ENODEV 19
    };
    for (const Case& c : cases) CHECK(render_error({c.code, "why"}, {}) == c.reply);
}

TEST_CASE("how errors are spelled") {
    const Error error{Errc::bad_address, "no page"};
    CHECK(render_error(error, {.text_allowed = true}) == "E.no page");
    CHECK(render_error(error, {.lldb_strings = true}) == "E0e;6e6f2070616765");
    // To lldb E.text is no error, whatever the packet allows.
    CHECK(render_error(error, {.text_allowed = true, .lldb_strings = true}) == "E0e;6e6f2070616765");
    // `E.` alone would say nothing.
    CHECK(render_error({Errc::busy, ""}, {.text_allowed = true}) == "E10");
    CHECK(render_error({Errc::busy, ""}, {.lldb_strings = true}) == "E10");
}
