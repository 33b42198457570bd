#include "os-awareness/linux/kallsyms_names.h"

#include <algorithm>
#include <functional>

namespace exo::os {
namespace {

constexpr std::size_t token_count = 256;
constexpr std::size_t index_bytes = token_count * sizeof(std::uint16_t);
constexpr std::size_t largest_padding = 7;  // tables are aligned to 8 at most

// Hostile data must not cost more than this many looks; a real kernel costs a few thousand.
constexpr std::size_t digit_rows_limit = 256;
constexpr std::size_t marker_rows_limit = 4096;
constexpr std::size_t chain_steps_limit = std::size_t{1} << 22;

constexpr std::size_t symbols_per_marker = 256;
constexpr std::size_t symbols_limit = std::size_t{1} << 22;
constexpr std::size_t name_limit = 1024;  // KSYM_NAME_LEN is 512 since 6.1
constexpr std::size_t names_limit = std::size_t{1} << 27;
// The least and the most that 256 names can take up: "length, one token" and two-byte lengths of 512 tokens.
constexpr std::uint64_t least_stride = symbols_per_marker * 2;
constexpr std::uint64_t largest_stride = symbols_per_marker * (512 + 2);
// How far before the token table the markers may begin: sequence numbers of 4 bytes, and the markers.
constexpr std::size_t markers_window = std::size_t{1} << 23;

bool is_padding(ConstBytes image, std::size_t begin, std::size_t end) {
    return std::ranges::all_of(image.subspan(begin, end - begin),
                               [](std::byte b) { return b == std::byte{0}; });
}

// Each digit occurs in some symbol, so its token is the digit itself and stands at its ASCII code.
constexpr std::string_view digit_tokens{"0\0001\0002\0003\0004\0005\0006\0007\0008\0009\0", 20};

// Past the end of the token that begins at `at`.
std::optional<std::size_t> after_token(ConstBytes image, std::size_t at) {
    const auto rest = image.subspan(at, std::min(image.size() - at, name_limit));
    const auto nul = std::ranges::find(rest, std::byte{0});
    if (nul == rest.end()) return std::nullopt;
    return at + static_cast<std::size_t>(nul - rest.begin()) + 1;
}

// The table of which the digits are at `digits`, if token_index, which can be foretold from it, is behind it.
// What is printable before the table does not matter: token_index says where it begins.
std::optional<TokenTable> token_table_around(ConstBytes image, std::size_t digits) {
    std::size_t end = digits;
    for (std::size_t token = '0'; token < token_count; ++token) {
        const auto next = after_token(image, end);
        if (!next) return std::nullopt;
        end = *next;
    }
    for (std::size_t gap = 0; gap <= largest_padding; ++gap) {
        const std::size_t index = end + gap;
        if (index + index_bytes > image.size() || !is_padding(image, end, index)) break;
        const auto offset_of = [&](std::size_t token) {
            return value_at<std::uint16_t>(image, index + token * sizeof(std::uint16_t));
        };
        if (offset_of(0) != 0 || offset_of('0') > digits) continue;
        TokenTable table{digits - offset_of('0'), index + index_bytes, {}};
        std::size_t at = table.begin;
        std::size_t token = 0;
        for (; token < token_count && at - table.begin == offset_of(token); ++token) {
            const auto next = after_token(image, at);
            if (!next || *next > end) break;
            table.tokens[token] = as_text(image).substr(at, *next - at - 1);
            at = *next;
        }
        if (token == token_count && at == end) return table;
    }
    return std::nullopt;
}

// Markers, 4 or 8 bytes wide.
struct Markers {
    ConstBytes image;
    std::size_t begin;
    std::size_t limit;  // they end here at the latest
    std::uint8_t width;

    [[nodiscard]] std::optional<std::uint64_t> operator[](std::size_t i) const {
        const std::size_t at = begin + i * width;
        if (at + width > limit) return std::nullopt;
        return width == 4 ? value_at<std::uint32_t>(image, at) : value_at<std::uint64_t>(image, at);
    }

    // How many entries look like markers, from the first on.
    [[nodiscard]] std::size_t plausible_count() const {
        std::size_t count = 0;
        std::uint64_t previous = 0;
        for (auto value = (*this)[0]; value; value = (*this)[count]) {
            const bool fits = count == 0
                                  ? *value == 0
                                  : *value >= previous + least_stride && *value <= previous + largest_stride;
            if (!fits) break;
            previous = *value;
            ++count;
        }
        return count;
    }
};

// Follows the lengths from `begin` on. Each 256th symbol must be where its marker says, and the last one must
// end where the markers begin.
std::optional<NameTable> follow_chain(ConstBytes image, std::size_t begin, const Markers& markers,
                                      NameLength length, std::size_t& steps_left) {
    std::size_t at = begin;
    std::size_t count = 0;
    while (true) {
        const std::size_t left = markers.begin - at;
        if (left <= largest_padding && is_padding(image, at, markers.begin)) break;
        if (count == symbols_limit || steps_left == 0) return std::nullopt;
        --steps_left;
        if (count % symbols_per_marker == 0 && markers[count / symbols_per_marker] != at - begin)
            return std::nullopt;
        std::size_t tokens = std::to_integer<std::size_t>(image[at]);
        std::size_t header = 1;
        if (length == NameLength::uleb128 && (tokens & 0x80) != 0) {
            if (left < 2) return std::nullopt;
            tokens = (tokens & 0x7f) | std::to_integer<std::size_t>(image[at + 1]) << 7;
            header = 2;
        }
        if (tokens == 0 || tokens + header > left) return std::nullopt;
        at += header + tokens;
        ++count;
    }
    return NameTable{begin, at, markers.begin, count, markers.width, length};
}

std::optional<NameTable> names_before(ConstBytes image, const Markers& markers, std::size_t plausible,
                                      std::size_t& steps_left) {
    // The names are as long as the last marker says and up to 256 symbols longer. What follows the markers
    // may look like one more of them, so the last but one counts too.
    const std::uint64_t most = *markers[plausible - 1] + largest_stride;
    const std::uint64_t least = plausible > 2 ? *markers[plausible - 2] : *markers[plausible - 1];
    if (least > markers.begin) return std::nullopt;
    const std::size_t first = most > markers.begin ? 0 : markers.begin - most;
    // A number of symbols, 4-byte aligned, stands before the names in all versions.
    for (std::size_t begin = (markers.begin - least) & ~std::size_t{3}; begin + 4 > first + 4; begin -= 4) {
        for (const auto length : {NameLength::uleb128, NameLength::one_byte}) {
            const auto found = follow_chain(image, begin, markers, length, steps_left);
            if (found && found->count > (plausible - 2) * symbols_per_marker) return found;
            if (steps_left == 0) return std::nullopt;
        }
        if (begin < 4) break;
    }
    return std::nullopt;
}

}  // namespace

std::vector<TokenTable> find_token_tables(ConstBytes image, std::size_t limit) {
    std::vector<TokenTable> tables;
    const auto text = as_text(image);
    std::size_t rows = 0;
    for (auto at = text.find(digit_tokens); at != text.npos; at = text.find(digit_tokens, at + 1)) {
        if (auto table = token_table_around(image, at)) tables.push_back(*table);
        if (tables.size() == limit || ++rows == digit_rows_limit) break;
    }
    return tables;
}

std::optional<NameTable> find_names(ConstBytes image, const TokenTable& tokens) {
    struct Row {
        Markers markers;
        std::size_t count;
    };
    std::vector<Row> rows;
    const std::size_t window_begin = tokens.begin > markers_window ? tokens.begin - markers_window : 0;
    for (std::size_t at = tokens.begin & ~std::size_t{3}; at >= window_begin + 4;) {
        at -= 4;
        if (value_at<std::uint32_t>(image, at) != 0) continue;
        for (const std::uint8_t width : {std::uint8_t{4}, std::uint8_t{8}}) {
            const Markers markers{image, at, tokens.begin, width};
            if (const std::size_t count = markers.plausible_count(); count >= 2)
                rows.push_back({markers, count});
        }
        if (rows.size() >= marker_rows_limit) break;
    }
    // The longest first: a part of 8-byte markers, read as 4-byte ones, looks like a short row.
    std::ranges::stable_sort(rows, std::greater{}, &Row::count);
    std::size_t steps_left = chain_steps_limit;
    for (const Row& row : rows) {
        if (auto found = names_before(image, row.markers, row.count, steps_left)) return found;
        if (steps_left == 0) break;
    }
    return std::nullopt;
}

Result<ExpandedNames> expand_names(ConstBytes image, const TokenTable& tokens, const NameTable& names) {
    ExpandedNames expanded;
    expanded.names.reserve(names.count);
    expanded.text.reserve((names.end - names.begin) * 3);
    std::size_t at = names.begin;
    for (std::size_t i = 0; i < names.count; ++i) {
        std::size_t length = std::to_integer<std::size_t>(image[at++]);
        if (names.length == NameLength::uleb128 && (length & 0x80) != 0) {
            length = (length & 0x7f) | std::to_integer<std::size_t>(image[at++]) << 7;
        }
        const std::size_t start = expanded.text.size();
        for (const std::byte token : image.subspan(at, length)) {
            expanded.text += tokens.tokens[std::to_integer<std::size_t>(token)];
            if (expanded.text.size() - start > name_limit)
                return fail(Errc::bad_data, "a symbol's name is too long");
        }
        at += length;
        if (expanded.text.size() - start < 2) return fail(Errc::bad_data, "a symbol has no name");
        if (expanded.text.size() > names_limit)
            return fail(Errc::bad_data, "the symbols' names are too long");
        const char type = expanded.text[start];
        expanded.text += '\0';
        expanded.names.push_back({static_cast<std::uint32_t>(start + 1), type});
    }
    return expanded;
}

}  // namespace exo::os
