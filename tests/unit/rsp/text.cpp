#include <doctest/doctest.h>

#include "rsp/stop_reply.h"

using namespace std::literals;

namespace {

std::string xml(std::string_view text) {
    std::string out = "\"";
    exo::rsp::append_xml(out, text);
    return out.substr(1);
}

std::string json(std::string_view text) {
    std::string out = "\"";
    exo::rsp::append_json(out, text);
    return out.substr(1);
}

}  // namespace

TEST_CASE("XML: what is markup, and what a parser would change or refuse") {
    CHECK(xml("kworker/0:1-events") == "kworker/0:1-events");
    CHECK(xml("<a b=\"c\" d='e'>&amp;") == "&lt;a b=&quot;c&quot; d=&apos;e&apos;&gt;&amp;amp;");
    CHECK(xml("a\tb\nc\rd") == "a&#9;b&#10;c&#13;d");
    CHECK(xml("a\0b\x01\x1f\x7f"sv) == "a?b??\x7f");
}

TEST_CASE("JSON: what ends a string, and control characters") {
    CHECK(json("migration/0") == "migration/0");
    CHECK(json("a\"b\\c") == "a\\\"b\\\\c");
    CHECK(json("a\tb\nc\rd") == "a\\tb\\nc\\rd");
    CHECK(json("a\0b\x01\x1f"sv) == "a\\u0000b\\u0001\\u001f");
    CHECK(json("<&'>") == "<&'>");
}

TEST_CASE("well-formed UTF-8 stays") {
    for (const char* text :
         {"\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xe2\x82\xac", "\xed\x9f\xbf", "\xee\x80\x80",
          "\xef\xbf\xbd", "\xf0\x90\x80\x80", "\xf3\xbf\xbf\xbd", "\xf4\x8f\xbf\xbd"}) {
        CAPTURE(text);
        CHECK(xml(text) == text);
        CHECK(json(text) == text);
    }
}

TEST_CASE("each ill-formed byte becomes a question mark, and eats nothing that follows") {
    struct Case {
        std::string_view text, marks;
    };
    const Case cases[] = {
        {"\x80<", "?"},                           // continuation alone
        {"\xc0\xaf<", "??"},                      // overlong
        {"\xe0\x9f\xbf<", "???"},                 // overlong
        {"\xed\xa0\x80<", "???"},                 // surrogate
        {"\xf4\x90\x80\x80<", "????"},            // above U+10FFFF
        {"\xf5\x80\x80\x80<", "????"},            // no lead byte
        {"\xff<", "?"},                           // never in UTF-8
        {"\xc3<", "?"},                           // cut short
        {"\xe2\x82<", "??"},                      // cut short
        {"\xf0\x90\x80<", "???"},                 // cut short
        {"\xef\xbf\xbe\xef\xbf\xbf<", "??????"},  // U+FFFE, U+FFFF: none of XML's characters
    };
    for (const Case& one : cases) {
        CAPTURE(one.marks);
        CHECK(xml(one.text) == std::string(one.marks) + "&lt;");
        CHECK(json(one.text) == std::string(one.marks) + "<");
    }
    CHECK(xml("\xe2") == "?");
    CHECK(xml("\xe2\x82") == "??");
}
