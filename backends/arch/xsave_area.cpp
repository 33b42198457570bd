#include "backends/arch/xsave_area.h"

#include <array>
#include <cstring>

#include "backends/arch/register_fields.h"
#include "backends/arch/x86_64.h"

namespace exo::x86 {
namespace {

// FXSAVE in 64-bit mode (Intel SDM vol. 1, table 10-2) and, behind the header, the upper halves of ymm.
constexpr auto xsave_fields = [] {
    std::array<Field, 8 + 16 + 16 + 8> fields{};
    std::size_t at = 0;
    const auto add = [&](unsigned number, unsigned offset, unsigned size) {
        fields[at++] = {static_cast<RegisterNumber>(number), static_cast<std::uint16_t>(offset),
                        static_cast<std::uint8_t>(size)};
    };
    add(fctrl, 0, 2);
    add(fstat, 2, 2);
    add(fop, 6, 2);
    add(fioff, 8, 4);
    add(fiseg, 12, 2);
    add(fooff, 16, 4);
    add(foseg, 20, 2);
    add(mxcsr, 24, 4);
    for (unsigned i = 0; i < 8; ++i) add(st0 + i, 32 + 16 * i, 10);
    for (unsigned i = 0; i < 16; ++i) add(xmm0 + i, 160 + 16 * i, 16);
    for (unsigned i = 0; i < 16; ++i) add(ymm0h + i, 576 + 16 * i, 16);
    return fields;
}();
constexpr std::size_t abridged_tag_offset = 4;
constexpr std::size_t first_register_offset = 32;
constexpr std::size_t xstate_bv_offset = 512;

// FXSAVE keeps one bit a register: used or empty. The full word tells kinds of numbers apart, which follow
// from the numbers (Intel SDM vol. 1, 8.1.7). Tags are of physical registers, numbers are saved in the order
// of the stack.
std::uint16_t full_tag_word(std::span<const std::byte> area) {
    constexpr unsigned valid = 0, zero = 1, special = 2, empty = 3;
    const auto used = std::to_integer<unsigned>(area[abridged_tag_offset]);
    const unsigned top = std::to_integer<unsigned>(area[3]) >> 3U & 7U;  // fstat bits 11 to 13
    unsigned word = 0;
    for (std::size_t physical = 0; physical < 8; ++physical) {
        unsigned tag = empty;
        if ((used >> physical & 1U) != 0) {
            const auto* at = area.data() + first_register_offset + 16 * ((physical + 8 - top) % 8);
            std::uint64_t mantissa = 0;
            std::uint16_t exponent = 0;
            std::memcpy(&mantissa, at, sizeof mantissa);
            std::memcpy(&exponent, at + sizeof mantissa, sizeof exponent);
            exponent &= 0x7fff;
            const bool normal = mantissa >> 63U != 0;
            if (exponent == 0)
                tag = mantissa == 0 ? zero : special;
            else
                tag = exponent == 0x7fff || !normal ? special : valid;
        }
        word |= tag << (2 * physical);
    }
    return static_cast<std::uint16_t>(word);
}

}  // namespace

bool is_in_xsave(RegisterNumber number) {
    return number == ftag || field_of(xsave_fields, number) != nullptr;
}

std::uint64_t xstate_bv(const XsaveArea& xsave) {
    std::uint64_t state = 0;
    std::memcpy(&state, xsave.data() + xstate_bv_offset, sizeof state);
    return state;
}

void fill_from_xsave(RegisterSet& registers, const XsaveArea& xsave, bool has_avx) {
    fill_from(registers, xsave_fields, xsave);
    registers.set(ftag, full_tag_word(xsave));
    const std::uint64_t state = xstate_bv(xsave);
    for (unsigned i = 0; i < 16; ++i) {
        const auto number = static_cast<RegisterNumber>(ymm0h + i);
        if (!has_avx)
            registers.set_unavailable(number);
        else if ((state & avx_state) == 0)
            registers.set(number, 0);  // the initial state
    }
}

bool put_into_xsave(XsaveArea& xsave, const RegisterSet& values, RegisterNumber number) {
    std::byte* const area = xsave.data();
    std::uint64_t state = xstate_bv(xsave);
    if (number == ftag) {
        const auto word = static_cast<unsigned>(values.get(ftag).value_or(0));
        unsigned used = 0;
        for (unsigned i = 0; i < 8; ++i) used |= (word >> (2 * i) & 3U) != 3U ? 1U << i : 0U;
        area[abridged_tag_offset] = static_cast<std::byte>(used);
        state |= x87_state;
    } else if (!put_into(xsave_fields, xsave, values, number)) {
        return false;
    } else if (number >= ymm0h && number <= ymm15h) {
        state |= avx_state;
    } else if (number >= xmm0 && number <= mxcsr) {
        state |= sse_state;
    } else {
        state |= x87_state;
    }
    std::memcpy(area + xstate_bv_offset, &state, sizeof state);
    return true;
}

}  // namespace exo::x86
