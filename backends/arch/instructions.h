// The few instructions that run control has to know (Intel SDM vol. 2).
#pragma once

#include <cstddef>

#include "backends/api/memory.h"

namespace exo::x86 {

inline constexpr std::size_t longest_instruction = 15;  // bytes (vol. 2A, 2.3.11)

// Bytes of the HLT, PAUSE or MWAIT that `code` begins with, 0 for any other instruction.
std::size_t pause_length(ConstBytes code);

// Of the NOP that `code` begins with, in 64-bit mode (vol. 2B, NOP); 0 where it begins with another
// instruction. Not of ENDBR64, which ends what an indirect branch has begun (vol. 1, 18.3.1).
std::size_t nop_length(ConstBytes code);

}  // namespace exo::x86
