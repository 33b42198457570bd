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
static_assert(mwait.size() == longest_pause);

}  // namespace

std::size_t pause_length(ConstBytes code) {
    for (const std::span<const std::uint8_t> one : {std::span<const std::uint8_t>{hlt}, {pause}, {mwait}}) {
        if (code.size() >= one.size() && std::ranges::equal(std::as_bytes(one), code.first(one.size()))) {
            return one.size();
        }
    }
    return 0;
}

}  // namespace exo::x86
