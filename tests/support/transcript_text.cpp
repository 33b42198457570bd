#include "tests/support/transcript_text.h"

#include <charconv>
#include <regex>

namespace exo::test {

std::string escape(std::string_view payload) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string out;
    for (const char c : payload) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '\\') {
            out += "\\\\";
        } else if (byte >= 0x20 && byte < 0x7f) {
            out += c;
        } else {
            out.append("\\x").append(1, digits[byte >> 4U]).append(1, digits[byte & 0xfU]);
        }
    }
    return out;
}

std::uint64_t number(std::string_view text) {
    if (text.starts_with("0x")) text.remove_prefix(2);
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    if (error != std::errc{} || end != text.data() + text.size()) {
        throw Mistake("not a hex number: " + std::string{text});
    }
    return value;
}

std::string unescape(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '\\') {
            out += text[i];
        } else if (text.substr(i + 1, 1) == "\\") {
            out += '\\';
            ++i;
        } else if (text.substr(i + 1, 1) == "x" && i + 3 < text.size()) {
            out += static_cast<char>(number(text.substr(i + 2, 2)));
            i += 3;
        } else {
            throw Mistake("a backslash is followed by \\ or by x and two digits");
        }
    }
    return out;
}

std::string abbreviated(const std::string& reply) {
    static const std::regex registers{";([0-9a-f]{2}:[0-9a-f]{8,16};){4,}"};
    const bool stop = reply.starts_with('T') || reply.starts_with("%Stop:T");
    return stop ? std::regex_replace(reply, registers, ";{{registers}}") : reply;
}

std::vector<Piece> pieces_of(std::string_view pattern, const Captures& captures) {
    std::vector<Piece> pieces;
    while (!pattern.empty()) {
        const std::size_t open = pattern.find("{{");
        if (open != 0) pieces.push_back({false, std::string{pattern.substr(0, open)}, {}});
        if (open == std::string_view::npos) break;
        const std::size_t close = pattern.find("}}", open);
        if (close == std::string_view::npos) throw Mistake("{{ without }}");
        std::string inside{pattern.substr(open + 2, close - open - 2)};
        pattern.remove_prefix(close + 2);
        if (inside.starts_with('=')) {
            const auto kept = captures.find(inside.substr(1));
            if (kept == captures.end()) throw Mistake("nothing was kept as " + inside.substr(1));
            pieces.push_back({false, kept->second, {}});
            continue;
        }
        std::string name;
        if (const std::size_t at = inside.find(":="); at != std::string::npos) {
            name = inside.substr(0, at);
            inside.erase(0, at + 2);
        }
        if (inside == "registers") inside = "([0-9a-f]{2,}:[0-9a-fx]+;)+";
        pieces.push_back({true, inside, name});
    }
    return pieces;
}

namespace {

bool part_matches(const std::string& regex, const std::string& part) {
    return regex == "*" || std::regex_match(part, std::regex{regex});
}

}  // namespace

bool matches(std::span<const Piece> pieces, std::string_view actual, Captures& captures) {
    if (pieces.empty()) return actual.empty();
    const Piece& piece = pieces.front();
    const auto rest = pieces.subspan(1);
    if (!piece.wild) {
        return actual.starts_with(piece.text) && matches(rest, actual.substr(piece.text.size()), captures);
    }
    const std::string_view stop = rest.empty() || rest.front().wild ? std::string_view{} : rest.front().text;
    std::size_t end = rest.empty() ? actual.size() : actual.find(stop);
    while (end != std::string_view::npos && end <= actual.size()) {
        const std::string part{actual.substr(0, end)};
        if (part_matches(piece.text, part) && matches(rest, actual.substr(end), captures)) {
            if (!piece.name.empty()) captures[piece.name] = part;
            return true;
        }
        if (rest.empty()) break;
        end = actual.find(stop, end + 1);
    }
    return false;
}

// key=value pairs of a directive, and its bare words.

}  // namespace exo::test
