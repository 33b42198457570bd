// The text of transcripts: escapes, patterns, and the words of directives.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace exo::test {

// In the file itself.
struct Mistake : std::runtime_error {
    using std::runtime_error::runtime_error;
};

std::string escape(std::string_view payload);
std::string unescape(std::string_view text);
std::uint64_t number(std::string_view text);  // hex, with or without 0x
// A stop reply's registers are of interest in few transcripts.
std::string abbreviated(const std::string& reply);

using Captures = std::map<std::string, std::string>;

struct Piece {
    bool wild = false;
    std::string text;  // literal, or regex ("*" for anything)
    std::string name;  // of a capture
};

std::vector<Piece> pieces_of(std::string_view pattern, const Captures& captures);
// Shortest first: a wild piece ends at each place where the literal behind it stands, in turn.
bool matches(std::span<const Piece> pieces, std::string_view actual, Captures& captures);

// key=value pairs of a directive, and its bare words.
struct Arguments {
    std::vector<std::string> words;
    std::map<std::string, std::string> values;

    explicit Arguments(const std::string& line) {
        std::istringstream stream{line};
        std::string word;
        while (stream >> word) {
            const std::size_t equals = word.find('=');
            if (equals == std::string::npos) {
                words.push_back(word);
            } else {
                values[word.substr(0, equals)] = word.substr(equals + 1);
            }
        }
    }
    [[nodiscard]] bool has(const std::string& word) const { return std::ranges::count(words, word) > 0; }
    std::optional<std::string> take(const std::string& key) {
        const auto it = values.find(key);
        if (it == values.end()) return std::nullopt;
        std::string value = it->second;
        values.erase(it);
        return value;
    }
    std::uint64_t take_number(const std::string& key, std::uint64_t otherwise = 0) {
        const auto value = take(key);
        return value ? number(*value) : otherwise;
    }
    [[nodiscard]] const std::string& word(std::size_t index) const {
        if (index >= words.size()) throw Mistake("the directive wants more words");
        return words[index];
    }
};

}  // namespace exo::test
