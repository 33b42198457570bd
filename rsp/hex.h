// Bytes and numbers as RSP spells them: lower-case hex, two digits a byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace exo::rsp {

// Appends; the reply is built in one buffer.
void append_hex(std::string& out, std::span<const std::byte> bytes);
void append_hex(std::string& out, std::string_view text);
void append_hex_number(std::string& out, std::uint64_t value);  // no leading zeros, "0" for 0
std::string to_hex(std::string_view text);

// Nothing on an odd count of digits or a character that is none.
std::optional<std::vector<std::byte>> from_hex(std::string_view digits);
std::optional<std::string> text_from_hex(std::string_view digits);
// 1 to 16 digits, nothing else.
std::optional<std::uint64_t> parse_hex_number(std::string_view digits);

}  // namespace exo::rsp
