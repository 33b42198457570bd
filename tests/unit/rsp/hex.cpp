#include "rsp/hex.h"

#include <doctest/doctest.h>

#include <array>
#include <string>

using namespace std::literals;
using namespace exo::rsp;

namespace {

std::string hex_number(std::uint64_t value) {
    std::string out;
    append_hex_number(out, value);
    return out;
}

std::string every_byte() {
    std::string bytes;
    for (int value = 0; value < 256; ++value) bytes += static_cast<char>(value);
    return bytes;
}

}  // namespace

TEST_CASE("bytes to hex: two lower-case digits each, appended") {
    std::string out = "m";
    append_hex(out, "\x00\x0f\xf0\xab\xff"sv);
    CHECK(out == "m000ff0abff");
    constexpr std::array bytes{std::byte{0x9a}, std::byte{0x01}};
    append_hex(out, std::span<const std::byte>(bytes));
    CHECK(out == "m000ff0abff9a01");
    CHECK(to_hex("OK") == "4f4b");
    CHECK(to_hex("") == "");
}

TEST_CASE("every byte, and texts longer than a block, there and back") {
    std::string text;
    for (int i = 0; i < 33; ++i) text += every_byte() + "x";
    const std::string digits = to_hex(text);
    REQUIRE(digits.size() == 2 * text.size());
    for (std::size_t i = 0; i < text.size(); ++i) {
        const auto value = static_cast<unsigned char>(text[i]);
        REQUIRE(digits[2 * i] == "0123456789abcdef"[value >> 4]);
        REQUIRE(digits[2 * i + 1] == "0123456789abcdef"[value & 0xf]);
    }
    CHECK(text_from_hex(digits) == text);
}

TEST_CASE("hex to bytes takes both cases") {
    CHECK(text_from_hex("4f4B") == "OK");
    CHECK(text_from_hex("") == "");
    CHECK(from_hex("00aBFf") == std::vector{std::byte{0}, std::byte{0xab}, std::byte{0xff}});
}

TEST_CASE("hex to bytes refuses an odd count and what is no digit") {
    CHECK_FALSE(from_hex("0"));
    CHECK_FALSE(from_hex("000"));
    for (const char c : every_byte()) {
        const bool digit = "0123456789abcdefABCDEF"sv.find(c) != std::string_view::npos;
        CAPTURE(static_cast<int>(c));
        CHECK(from_hex(std::string(40, '0') + c + '0').has_value() == digit);
        CHECK(from_hex(std::string(41, 'F') + c).has_value() == digit);
        CHECK(parse_hex_number("1"s + c).has_value() == digit);
    }
}

TEST_CASE("numbers are printed without leading zeros") {
    CHECK(hex_number(0) == "0");
    CHECK(hex_number(0xa) == "a");
    CHECK(hex_number(0x100) == "100");
    CHECK(hex_number(0xffffffff81000000) == "ffffffff81000000");
}

TEST_CASE("numbers are 1 to 16 digits and nothing else") {
    CHECK(parse_hex_number("0") == 0);
    CHECK(parse_hex_number("00000000000000aB") == 0xab);
    CHECK(parse_hex_number("ffffffffffffffff") == 0xffffffffffffffff);
    CHECK_FALSE(parse_hex_number(""));
    CHECK_FALSE(parse_hex_number("00000000000000000"));
    CHECK_FALSE(parse_hex_number("0x1"));
    CHECK_FALSE(parse_hex_number("-1"));
    CHECK_FALSE(parse_hex_number(" 1"));
    CHECK_FALSE(parse_hex_number("1 "));
}
