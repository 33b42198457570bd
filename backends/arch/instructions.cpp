#include "backends/arch/instructions.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

namespace exo::x86 {
namespace {

constexpr std::array<std::uint8_t, 1> hlt{0xf4};
constexpr std::array<std::uint8_t, 2> pause{0xf3, 0x90};
constexpr std::array<std::uint8_t, 3> mwait{0x0f, 0x01, 0xc9};

std::uint8_t at(ConstBytes code, std::size_t index) {
    return index < code.size() ? std::to_integer<std::uint8_t>(code[index]) : 0;
}

// ModRM, SIB and displacement, in bytes (SDM vol. 2A, tables 2-2 and 2-3).
std::size_t length_of_operand(ConstBytes code, std::size_t start) {
    const unsigned modrm = at(code, start);
    const unsigned mode = modrm >> 6U;
    const unsigned rm = modrm & 7U;
    if (mode == 3) return 1;
    const bool has_sib = rm == 4;
    const bool bare = mode == 0 && (rm == 5 || (has_sib && (at(code, start + 1) & 7U) == 5));
    const std::size_t displacement = mode == 1 ? 1 : mode == 2 || bare ? 4 : 0;
    return 1 + (has_sib ? 1 : 0) + displacement;
}

}  // namespace

std::size_t pause_length(ConstBytes code) {
    for (const std::span<const std::uint8_t> one : {std::span<const std::uint8_t>{hlt}, {pause}, {mwait}}) {
        if (code.size() >= one.size() && std::ranges::equal(std::as_bytes(one), code.first(one.size()))) {
            return one.size();
        }
    }
    return 0;
}

std::size_t nop_length(ConstBytes code) {
    std::size_t length = 0;
    while (at(code, length) == 0x66 || at(code, length) == 0x2e) ++length;
    if (at(code, length) == 0x90) {
        ++length;
    } else if (at(code, length) == 0x0f && at(code, length + 1) == 0x1f &&
               (at(code, length + 2) & 0x38U) == 0) {
        length += 2 + length_of_operand(code, length + 2);
    } else {
        return 0;
    }
    return length <= code.size() && length <= longest_instruction ? length : 0;
}

}  // namespace exo::x86
