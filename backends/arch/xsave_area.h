// The XSAVE area in its standard form (Intel SDM vol. 1, 13.4): 512 bytes as of FXSAVE, the header, and where
// the CPU has AVX the upper halves of the ymm registers at 576.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "backends/api/registers.h"

namespace exo::x86 {

using XsaveArea = std::vector<std::byte>;
inline constexpr std::size_t fxsave_size = 512;
inline constexpr std::size_t least_xsave_size = 4096;
// XSTATE_BV bits of what a restore takes from the area rather than from its initial state.
inline constexpr std::uint64_t x87_state = 1, sse_state = 2, avx_state = 4;

bool is_in_xsave(RegisterNumber number);
[[nodiscard]] std::uint64_t xstate_bv(const XsaveArea& xsave);

// `xsave` has at least least_xsave_size bytes. Without AVX the upper halves of ymm stay unavailable.
void fill_from_xsave(RegisterSet& registers, const XsaveArea& xsave, bool has_avx);
// Puts register `number` of `values` where it is held. False for one that is not held there.
bool put_into_xsave(XsaveArea& xsave, const RegisterSet& values, RegisterNumber number);

}  // namespace exo::x86
