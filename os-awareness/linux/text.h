// Numbers as the kernel prints them in /proc.
#pragma once

#include <array>
#include <charconv>
#include <cstdint>
#include <string>

namespace exo::os {

inline std::string number_text(std::uint64_t value, int base, std::size_t width = 0, char fill = '0') {
    std::array<char, 64> digits{};
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value, base).ptr;
    std::string text{digits.data(), end};
    if (text.size() < width) text.insert(0, width - text.size(), fill);
    return text;
}
inline std::string hex_digits(std::uint64_t value, std::size_t width) {
    return number_text(value, 16, width);
}

}  // namespace exo::os
