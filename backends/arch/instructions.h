// The few instructions that run control has to know (Intel SDM vol. 2).
#pragma once

#include <cstddef>

#include "backends/api/memory.h"

namespace exo::x86 {

inline constexpr std::size_t longest_pause = 3;  // bytes

// Bytes of the HLT, PAUSE or MWAIT that `code` begins with, 0 for any other instruction.
std::size_t pause_length(ConstBytes code);

}  // namespace exo::x86
