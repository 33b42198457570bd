#include "rsp/hex.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace exo::rsp {
namespace {

// Arithmetic, not tables, so that the compiler vectorises the loops below.
constexpr char digit_of(std::uint8_t nibble) {
    return static_cast<char>(nibble + '0' + (nibble > 9 ? 'a' - '0' - 10 : 0));
}

// Value of a digit in the low four bits; the bits above are set where `c` is no digit.
constexpr std::uint8_t value_of(std::uint8_t c) {
    const auto decimal = static_cast<std::uint8_t>(c - '0');
    const auto letter = static_cast<std::uint8_t>((c | 0x20) - 'a');
    const auto of_letter = static_cast<std::uint8_t>(letter < 6 ? letter + 10 : 0xff);
    return decimal < 10 ? decimal : of_letter;
}

bool decode(std::string_view digits, std::uint8_t* out) {
    const auto* in = reinterpret_cast<const std::uint8_t*>(digits.data());
    std::uint8_t bad = 0;
    for (std::size_t i = 0; i < digits.size() / 2; ++i) {
        const std::uint8_t high = value_of(in[2 * i]);
        const std::uint8_t low = value_of(in[2 * i + 1]);
        bad = static_cast<std::uint8_t>(bad | high | low);
        out[i] = static_cast<std::uint8_t>(high << 4 | low);
    }
    return bad < 0x10;
}

template <typename Bytes>
std::optional<Bytes> decode(std::string_view digits) {
    if (digits.size() % 2 != 0) return std::nullopt;
    Bytes bytes(digits.size() / 2, typename Bytes::value_type{});
    if (!decode(digits, reinterpret_cast<std::uint8_t*>(bytes.data()))) return std::nullopt;
    return bytes;
}

}  // namespace

void append_hex(std::string& out, std::string_view text) {
    // Through a block on the stack: growing the string first would clear what is then overwritten.
    constexpr std::size_t block = 2048;
    std::array<char, 2 * block> digits;
    out.reserve(out.size() + 2 * text.size());
    while (!text.empty()) {
        const std::size_t length = std::min(block, text.size());
        const auto* in = reinterpret_cast<const std::uint8_t*>(text.data());
        for (std::size_t i = 0; i < length; ++i) {
            digits[2 * i] = digit_of(in[i] >> 4);
            digits[2 * i + 1] = digit_of(in[i] & 0xf);
        }
        out.append(digits.data(), 2 * length);
        text.remove_prefix(length);
    }
}

void append_hex(std::string& out, std::span<const std::byte> bytes) {
    append_hex(out, std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

void append_hex_number(std::string& out, std::uint64_t value) {
    std::array<char, 16> digits;
    const auto result = std::to_chars(digits.data(), digits.data() + digits.size(), value, 16);
    out.append(digits.data(), result.ptr);
}

std::string to_hex(std::string_view text) {
    std::string out;
    append_hex(out, text);
    return out;
}

std::optional<std::vector<std::byte>> from_hex(std::string_view digits) {
    return decode<std::vector<std::byte>>(digits);
}

std::optional<std::string> text_from_hex(std::string_view digits) { return decode<std::string>(digits); }

std::optional<std::uint64_t> parse_hex_number(std::string_view digits) {
    if (digits.empty() || digits.size() > 16) return std::nullopt;
    std::uint64_t number = 0;
    for (const char c : digits) {
        const std::uint8_t value = value_of(static_cast<std::uint8_t>(c));
        if (value > 0xf) return std::nullopt;
        number = number << 4 | value;
    }
    return number;
}

}  // namespace exo::rsp
