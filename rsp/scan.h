// Where the next byte that frames a packet is, a block of bytes at a time: what makes framing keep up with
// memory.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace exo::rsp {

constexpr bool frames_packet(char c) { return c == '#' || c == '$' || c == '}' || c == '*'; }

// How many of the eight bytes at `from` stand before the first one that frames a packet.
inline std::size_t clean_bytes_of_word(const char* from) {
    constexpr std::uint64_t ones = 0x0101010101010101;
    std::uint64_t word = 0;
    std::memcpy(&word, from, sizeof word);
    if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
    // The lowest set top bit is the first zero byte's; those above it mean nothing (a borrow sets them too).
    constexpr auto zero_bytes = [](std::uint64_t v) { return (v - ones) & ~v; };
    const std::uint64_t found = (zero_bytes(word ^ (ones * '#')) | zero_bytes(word ^ (ones * '$')) |
                                 zero_bytes(word ^ (ones * '}')) | zero_bytes(word ^ (ones * '*'))) &
                                (ones * 0x80);
    return static_cast<std::size_t>(std::countr_zero(found)) / 8;  // 64 zero bits where there is none
}

// The same for scan_width bytes, what this machine does at once.
#if defined(__SSE2__)
constexpr std::size_t scan_width = 16;
inline std::size_t clean_bytes(const char* from) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    const auto equal = [bytes](char c) { return _mm_cmpeq_epi8(bytes, _mm_set1_epi8(c)); };
    const __m128i found =
        _mm_or_si128(_mm_or_si128(equal('#'), equal('$')), _mm_or_si128(equal('}'), equal('*')));
    const auto mask = static_cast<unsigned>(_mm_movemask_epi8(found));
    return static_cast<std::size_t>(std::countr_zero(mask | 1U << scan_width));
}
#else
constexpr std::size_t scan_width = 8;
inline std::size_t clean_bytes(const char* from) { return clean_bytes_of_word(from); }
#endif

// Index of the first byte of # $ } * in `bytes`, its size when there is none.
inline std::size_t find_framing(std::string_view bytes) {
    std::size_t i = 0;
    while (bytes.size() - i >= scan_width) {
        const std::size_t clean = clean_bytes(bytes.data() + i);
        if (clean < scan_width) return i + clean;
        i += scan_width;  // a constant: adding `clean` would make each turn wait for the one before
    }
    while (i < bytes.size() && !frames_packet(bytes[i])) ++i;
    return i;
}

constexpr std::size_t shortest_run = 4;  // "0000" is "0* ": a byte less

// Index of the first byte that is followed by three like it, the size when there is none.
inline std::size_t find_run(std::string_view bytes) {
    std::size_t i = 0;
#if defined(__SSE2__)
    while (bytes.size() - i >= scan_width + shortest_run) {
        const auto load = [&](std::size_t at) {
            return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes.data() + i + at));
        };
        const __m128i first = load(0);
        const __m128i same =
            _mm_and_si128(_mm_and_si128(_mm_cmpeq_epi8(first, load(1)), _mm_cmpeq_epi8(first, load(2))),
                          _mm_cmpeq_epi8(first, load(3)));
        if (const int mask = _mm_movemask_epi8(same); mask != 0)
            return i + static_cast<std::size_t>(std::countr_zero(static_cast<unsigned>(mask)));
        i += scan_width;
    }
#endif
    for (; bytes.size() - i >= shortest_run; ++i) {
        if (bytes[i] == bytes[i + 1] && bytes[i] == bytes[i + 2] && bytes[i] == bytes[i + 3]) return i;
    }
    return bytes.size();
}

// The checksum of a packet: its bytes added up modulo 256. Written so that the compiler vectorises it.
inline std::uint8_t sum_bytes(std::string_view bytes) {
    std::uint8_t sum = 0;
    for (const char c : bytes) sum = static_cast<std::uint8_t>(sum + static_cast<std::uint8_t>(c));
    return sum;
}

}  // namespace exo::rsp
