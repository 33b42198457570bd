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

// Shorter ones are frequent in the hex of code, and save less than it costs to find them.
constexpr std::size_t shortest_run = 16;

// Where the first run of shortest_run or more equal bytes begins, the size when there is none: each such run
// covers a whole word of eight that begins at a multiple of eight.
inline std::size_t find_run(std::string_view bytes) {
    constexpr std::size_t width = sizeof(std::uint64_t);
    for (std::size_t i = 0; i + width <= bytes.size(); i += width) {
        std::uint64_t word = 0;
        std::memcpy(&word, bytes.data() + i, width);
        if (word != std::rotl(word, 8)) continue;
        std::size_t start = i;
        while (start > 0 && bytes[start - 1] == bytes[i]) --start;
        std::size_t end = i + width;
        while (end < bytes.size() && bytes[end] == bytes[i]) ++end;
        if (end - start >= shortest_run) return start;
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
