#include "rsp/escape.h"

#include <array>
#include <bit>
#include <cstring>
#include <vector>

#include "rsp/scan.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace exo::rsp {
namespace {

Escaped escaped(std::size_t read, std::uint8_t sum_read, std::size_t written) {
    // Each escape adds the mark to the sum, and takes the bit away.
    const auto escapes = static_cast<std::uint8_t>(written - read);
    return {written, static_cast<std::uint8_t>(sum_read + escapes * (escape_mark - escape_flip))};
}

char* escape_bytes(std::string_view payload, char* out) {
    for (const char c : payload) {
        if (frames_packet(c)) {
            *out++ = escape_mark;
            *out++ = static_cast<char>(c ^ escape_flip);
        } else {
            *out++ = c;
        }
    }
    return out;
}

Escaped escape_portable(std::string_view payload, char* out) {
    char* const start = out;
    const char* in = payload.data();
    const char* const end = in + payload.size();
    while (static_cast<std::size_t>(end - in) >= scan_width) {
        // The whole block is copied; what follows a framing byte in it is overwritten in the next turn.
        std::memcpy(out, in, scan_width);
        const std::size_t clean = clean_bytes(in);
        if (clean == scan_width) {  // constants: adding `clean` would make each turn wait for the one before
            in += scan_width;
            out += scan_width;
            continue;
        }
        in += clean;
        out += clean;
        *out++ = escape_mark;
        *out++ = static_cast<char>(*in++ ^ escape_flip);
    }
    out = escape_bytes({in, end}, out);
    return escaped(payload.size(), sum_bytes(payload), static_cast<std::size_t>(out - start));
}

#if defined(__x86_64__)
// For each set of framing bytes among eight (bit i: byte i is one), where the bytes of what is written come
// from: a number of a byte, or from_mark. PSHUFB takes the low bits of either, PBLENDVB the top one.
constexpr std::uint8_t from_mark = 0x80;
using Spread = std::array<std::uint8_t, 16>;
struct alignas(16) SpreadTable {
    std::array<Spread, 256> of{};
};

constexpr SpreadTable spreads = [] {
    SpreadTable table;
    for (unsigned mask = 0; mask < table.of.size(); ++mask) {
        std::size_t at = 0;
        for (unsigned byte = 0; byte < 8; ++byte) {
            if ((mask >> byte & 1U) != 0) table.of[mask][at++] = from_mark;
            table.of[mask][at++] = static_cast<std::uint8_t>(byte);
        }
    }
    return table;
}();

// No processor has AVX2 without POPCNT.
// Writes the low eight of `bytes`, flipped already where `mask` says so, with their marks: 16 bytes, of which
// those count that the next ones do not overwrite.
[[gnu::target("avx2,popcnt")]] inline void spread(__m128i bytes, std::uint64_t mask, char* out) {
    const __m128i from = _mm_load_si128(reinterpret_cast<const __m128i*>(spreads.of[mask & 0xff].data()));
    const __m128i to = _mm_blendv_epi8(_mm_shuffle_epi8(bytes, from), _mm_set1_epi8(escape_mark), from);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), to);
}

[[gnu::target("avx2,popcnt")]] inline __m256i framing_of(__m256i bytes) {
    const __m256i hash = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('#'));
    const __m256i dollar = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('$'));
    const __m256i brace = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('}'));
    const __m256i star = _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('*'));
    return _mm256_or_si256(_mm256_or_si256(hash, dollar), _mm256_or_si256(brace, star));
}

[[gnu::target("avx2,popcnt")]] inline std::size_t escape_count(std::uint64_t mask) {
    return static_cast<std::size_t>(__builtin_popcountll(mask));
}

// Writes all of `bytes`, without a branch on where or whether there is a framing byte.
[[gnu::target("avx2,popcnt")]] inline char* spread_block(__m256i bytes, __m256i framing, char* out) {
    const auto mask = static_cast<std::uint32_t>(_mm256_movemask_epi8(framing));
    const __m256i flip = _mm256_and_si256(framing, _mm256_set1_epi8(escape_flip));
    const __m256i flipped = _mm256_xor_si256(bytes, flip);
    const __m128i low = _mm256_castsi256_si128(flipped);
    const __m128i high = _mm256_extracti128_si256(flipped, 1);
    spread(low, mask, out);
    spread(_mm_srli_si128(low, 8), mask >> 8, out + 8 + escape_count(mask & 0xff));
    spread(high, mask >> 16, out + 16 + escape_count(mask & 0xffff));
    spread(_mm_srli_si128(high, 8), mask >> 24, out + 24 + escape_count(mask & 0xffffff));
    return out + sizeof(__m256i) + escape_count(mask);
}

// Whether there are framing bytes is asked of four blocks at once: of one it is a coin toss in kernel text,
// which no processor foretells, of four it is nearly always yes, and nearly always no in empty pages.
[[gnu::target("avx2,popcnt")]] Escaped escape_avx2(std::string_view payload, char* out) {
    constexpr std::size_t width = sizeof(__m256i);
    constexpr std::size_t blocks = 4;
    char* const start = out;
    const char* in = payload.data();
    const char* const end = in + payload.size();
    __m256i sums = _mm256_setzero_si256();
    for (; static_cast<std::size_t>(end - in) >= blocks * width; in += blocks * width) {
        __m256i bytes[blocks];
        __m256i framing[blocks];
        __m256i any = _mm256_setzero_si256();
        for (std::size_t i = 0; i < blocks; ++i) {
            bytes[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i * width));
            framing[i] = framing_of(bytes[i]);
            any = _mm256_or_si256(any, framing[i]);
            sums = _mm256_add_epi8(sums, bytes[i]);
        }
        if (_mm256_testz_si256(any, any) != 0) {
            for (std::size_t i = 0; i < blocks; ++i)
                _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i * width), bytes[i]);
            out += blocks * width;
            continue;
        }
        for (std::size_t i = 0; i < blocks; ++i) out = spread_block(bytes[i], framing[i], out);
    }
    for (; static_cast<std::size_t>(end - in) >= width; in += width) {
        const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in));
        sums = _mm256_add_epi8(sums, bytes);
        out = spread_block(bytes, framing_of(bytes), out);
    }
    std::array<char, width> lanes{};
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes.data()), sums);
    const std::string_view rest{in, end};
    const auto sum = static_cast<std::uint8_t>(sum_bytes({lanes.data(), width}) + sum_bytes(rest));
    out = escape_bytes(rest, out);
    return escaped(payload.size(), sum, static_cast<std::size_t>(out - start));
}

// AVX-512 VBMI2 has the instruction that puts bytes where a mask has its ones.
// Writes the low 32 of `bytes`, flipped already where `framing` says so, with their marks: 64 bytes, of which
// those count that the next ones do not overwrite.
[[gnu::target("avx512bw,avx512vbmi2,bmi2,popcnt")]] inline char* expand(__m512i bytes, std::uint32_t framing,
                                                                        char* out) {
    // Two places for each byte, the first of them for its mark: of these, those that are used, and of those
    // again, in order, where the bytes go.
    constexpr std::uint64_t marks = 0x5555555555555555;
    const std::uint64_t used = ~marks | _pdep_u64(framing, marks);
    const std::uint64_t to = _pext_u64(~marks, used);
    _mm512_storeu_si512(out, _mm512_mask_expand_epi8(_mm512_set1_epi8(escape_mark), to, bytes));
    return out + sizeof(__m256i) + escape_count(framing);
}

[[gnu::target("avx512bw,avx512vbmi2,bmi2,popcnt")]] inline std::uint64_t framing_mask(__m512i bytes) {
    return _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8('#')) |
           _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8('$')) |
           _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8('}')) |
           _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8('*'));
}

[[gnu::target("avx512bw,avx512vbmi2,bmi2,popcnt")]] Escaped escape_avx512(std::string_view payload,
                                                                          char* out) {
    constexpr std::size_t width = sizeof(__m512i);
    char* const start = out;
    const char* in = payload.data();
    const char* const end = in + payload.size();
    __m512i sums = _mm512_setzero_si512();
    for (; static_cast<std::size_t>(end - in) >= width; in += width) {
        const __m512i bytes = _mm512_loadu_si512(in);
        const std::uint64_t framing = framing_mask(bytes);
        const __m512i flipped = _mm512_mask_sub_epi8(bytes, framing, bytes, _mm512_set1_epi8(escape_flip));
        const __m256i high = _mm512_maskz_extracti64x4_epi64(0xff, flipped, 1);
        sums = _mm512_add_epi8(sums, bytes);
        out = expand(flipped, static_cast<std::uint32_t>(framing), out);
        out = expand(_mm512_castsi256_si512(high), static_cast<std::uint32_t>(framing >> 32), out);
    }
    std::array<char, width> lanes{};
    _mm512_storeu_si512(lanes.data(), sums);
    const std::string_view rest{in, end};
    const auto sum = static_cast<std::uint8_t>(sum_bytes({lanes.data(), width}) + sum_bytes(rest));
    out = escape_bytes(rest, out);
    return escaped(payload.size(), sum, static_cast<std::size_t>(out - start));
}

std::vector<Escape> found_ways() {
    std::vector<Escape> found{escape_portable};
    if (__builtin_cpu_supports("avx2")) found.push_back(escape_avx2);
    if (__builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("bmi2"))
        found.push_back(escape_avx512);
    return found;
}
#else
std::vector<Escape> found_ways() { return {escape_portable}; }
#endif

}  // namespace

std::span<const Escape> escape_ways() {
    static const std::vector<Escape> ways = found_ways();
    return ways;
}

Escaped escape(std::string_view payload, char* out) {
    static const Escape best = escape_ways().back();
    return best(payload, out);
}

}  // namespace exo::rsp
