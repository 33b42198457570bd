// A process' auxiliary vector, as /proc/PID/auxv has it: pairs of words of the program's size, the second a
// value of the type that the first says (<linux/auxvec.h>).
#pragma once

#include <cstdint>
#include <string_view>

namespace exo::os {

inline constexpr std::uint64_t at_program_headers = 3;       // AT_PHDR
inline constexpr std::uint64_t at_program_header_bytes = 4;  // AT_PHENT
inline constexpr std::uint64_t at_program_header_count = 5;  // AT_PHNUM

// Of a 64-bit program; 0 where it has none of that type.
std::uint64_t auxiliary_value(std::string_view auxv, std::uint64_t type);

// Whether the program is of 32 bits: its words are, and so are its program headers.
bool is_auxv_of_32_bit(std::string_view auxv);

}  // namespace exo::os
