// Where the next byte that frames a packet is, eight bytes at a time: what makes framing keep up with memory.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace exo::rsp {

constexpr bool frames_packet(char c) { return c == '#' || c == '$' || c == '}' || c == '*'; }

// Little-endian in value whatever the host is, so that the lowest bits are the first byte.
inline std::uint64_t load_word(const char* from) {
    std::uint64_t word = 0;
    std::memcpy(&word, from, sizeof word);
    if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
    return word;
}

// A word whose lowest set bit is the top bit of the first byte of `word` that frames a packet; 0 when
// none does. The bits above the lowest one mean nothing (a borrow may have set them).
constexpr std::uint64_t framing_bytes(std::uint64_t word) {
    constexpr std::uint64_t ones = 0x0101010101010101;
    constexpr auto zero_bytes = [](std::uint64_t v) { return (v - ones) & ~v; };
    return (zero_bytes(word ^ (ones * '#')) | zero_bytes(word ^ (ones * '$')) |
            zero_bytes(word ^ (ones * '}')) | zero_bytes(word ^ (ones * '*'))) &
           (ones * 0x80);
}

// Index of the first byte of # $ } * in `bytes`, its size when there is none.
inline std::size_t find_framing(std::string_view bytes) {
    std::size_t i = 0;
    for (; bytes.size() - i >= sizeof(std::uint64_t); i += sizeof(std::uint64_t)) {
        const std::uint64_t found = framing_bytes(load_word(bytes.data() + i));
        if (found != 0) return i + static_cast<std::size_t>(std::countr_zero(found)) / 8;
    }
    while (i < bytes.size() && !frames_packet(bytes[i])) ++i;
    return i;
}

// The checksum of a packet: its bytes added up modulo 256. Written so that the compiler vectorises it.
inline std::uint8_t sum_bytes(std::string_view bytes) {
    std::uint8_t sum = 0;
    for (const char c : bytes) sum = static_cast<std::uint8_t>(sum + static_cast<std::uint8_t>(c));
    return sum;
}

}  // namespace exo::rsp
