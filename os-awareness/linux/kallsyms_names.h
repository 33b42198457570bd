// The compressed names of kallsyms: token table, token index, markers and the names themselves.
//
// What a table looks like is decided by looking at the data, since distributions move format changes between
// versions (scripts/kallsyms.c writes them, kernel/kallsyms.c reads them):
// - names: for each symbol a length and that many token numbers; the first character of the expansion is
//   nm's type letter. The length is one byte, or ULEB128 in up to two bytes since 6.1 (commit 73bbb94466fd).
// - markers: offset into names of each 256th symbol; u32 since 4.20 (80ffbaa5b1bd), unsigned long before.
// - token_table: 256 NUL-terminated strings; token_index: u16 offset of each. The index follows the table.
// The order is names, markers, [sequence numbers, 6.2 and 6.3 and some stable kernels,] token_table,
// token_index.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/memory.h"

namespace exo::os {

template <class T>
T value_at(ConstBytes image, std::size_t at) {
    T value{};
    std::memcpy(&value, image.data() + at, sizeof value);
    return value;
}

struct TokenTable {
    std::size_t begin = 0;                     // offset of token_table in the image
    std::size_t end = 0;                       // past token_index
    std::array<std::string_view, 256> tokens;  // refer to the image
};

// Each place that holds a token table, in address order, at most `limit`.
std::vector<TokenTable> find_token_tables(ConstBytes image, std::size_t limit = 16);

enum class NameLength : std::uint8_t { one_byte, uleb128 };

struct NameTable {
    std::size_t begin = 0;    // offset of kallsyms_names in the image
    std::size_t end = 0;      // past the last name
    std::size_t markers = 0;  // offset of kallsyms_markers
    std::size_t count = 0;    // of symbols
    std::uint8_t marker_bytes = 4;
    NameLength length = NameLength::one_byte;
};

// The names that belong to `tokens`: a chain of lengths that meets every marker and ends where the markers
// begin. Nothing if there is none.
std::optional<NameTable> find_names(ConstBytes image, const TokenTable& tokens);

struct ExpandedNames {
    struct Name {
        std::uint32_t offset = 0;  // into text, NUL-terminated there
        char type = '?';
    };
    std::string text;
    std::vector<Name> names;

    [[nodiscard]] std::string_view operator[](std::size_t i) const { return text.data() + names[i].offset; }
};

// bad_data when a name is longer than any kernel allows: then `names` is no name table after all.
Result<ExpandedNames> expand_names(ConstBytes image, const TokenTable& tokens, const NameTable& names);

}  // namespace exo::os
