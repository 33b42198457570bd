// Escaping of binary payloads (GDB manual, "Overview": `}`, then the byte with bit 5 flipped), fast enough
// for memory in bulk. Kernel text has a byte to escape in every 40 or so: what counts is not to branch on
// where.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace exo::rsp {

constexpr char escape_mark = '}';
constexpr char escape_flip = 0x20;  // set in all four framing bytes

struct Escaped {
    std::size_t length = 0;  // of what was written
    std::uint8_t sum = 0;    // of the bytes written, modulo 256
};

// Writes `payload` escaped to `out`, which has room for twice its size, and may write anything to the rest of
// that room.
Escaped escape(std::string_view payload, char* out);

// The ways in which it is done on this processor, the slowest first: for any, with AVX2, with AVX-512 VBMI2.
using Escape = Escaped (*)(std::string_view payload, char* out);
std::span<const Escape> escape_ways();

}  // namespace exo::rsp
