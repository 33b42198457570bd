#include "rsp/cursor.h"

#include <doctest/doctest.h>

using exo::rsp::Cursor;

TEST_CASE("a cursor takes from the front") {
    Cursor cursor("read:annex:1f,A;x");
    CHECK(cursor.take("read:"));
    CHECK(cursor.take_until(":") == "annex");
    CHECK(cursor.take(':'));
    CHECK(cursor.take_number() == 0x1f);
    CHECK(cursor.take(','));
    CHECK(cursor.take_number() == 10);
    CHECK(cursor.rest() == ";x");
    CHECK_FALSE(cursor.done());
    CHECK(cursor.take_until(":") == ";x");
    CHECK(cursor.done());
}

TEST_CASE("what does not match stays") {
    Cursor cursor("xyz");
    CHECK_FALSE(cursor.take('y'));
    CHECK_FALSE(cursor.take("xyzz"));
    CHECK_FALSE(cursor.take_number());
    CHECK(cursor.take_until("x") == "");
    CHECK(cursor.rest() == "xyz");

    Cursor long_number("11112222333344445,");
    CHECK_FALSE(long_number.take_number());
    CHECK(long_number.rest() == "11112222333344445,");

    Cursor empty("");
    CHECK_FALSE(empty.take('x'));
    CHECK_FALSE(empty.take_number());
    CHECK(empty.take_until(";") == "");
    CHECK(empty.done());
}
