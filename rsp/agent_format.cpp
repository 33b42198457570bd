#include "rsp/agent_format.h"

#include <algorithm>
#include <array>
#include <utility>

#include "rsp/cursor.h"

namespace exo::rsp {
namespace {

// gdbsupport/format.cc, format_pieces::format_pieces().
constexpr auto escapes = std::to_array<std::pair<char, char>>({
    {'\\', '\\'},
    {'"', '"'},
    {'a', '\a'},
    {'b', '\b'},
    {'e', '\x1b'},
    {'f', '\f'},
    {'n', '\n'},
    {'r', '\r'},
    {'t', '\t'},
    {'v', '\v'},
});

std::optional<char> unescape(char c) {
    const auto* const row = std::ranges::find(escapes, c, &std::pair<char, char>::first);
    if (row == escapes.end()) return std::nullopt;
    return row->second;
}

std::string digits_of(std::uint64_t value, unsigned base, bool upper) {
    const std::string_view digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
    std::string text;
    for (; value != 0; value /= base) text += digits[value % base];
    std::ranges::reverse(text);
    return text;  // empty for 0: a precision of 0 prints nothing then
}

std::uint64_t low_bits(std::uint64_t value, unsigned bits) {
    return bits >= 64 ? value : value & ((std::uint64_t{1} << bits) - 1);
}

}  // namespace

class AgentFormat::Parser {
public:
    explicit Parser(std::string_view text) : rest_(text) {}

    bool parse(std::vector<Piece>& pieces) {
        while (!rest_.empty()) {
            const char c = take();
            if (c == '\\') {
                const auto meant = rest_.empty() ? std::nullopt : unescape(take());
                if (!meant) return false;
                literal(pieces, *meant);
            } else if (c == '%' && !rest_.starts_with('%')) {
                Piece piece;
                if (!conversion(piece)) return false;
                pieces.push_back(piece);
            } else {
                if (c == '%') take();
                literal(pieces, c);
            }
        }
        return true;
    }

private:
    char take() {
        const char c = rest_.front();
        rest_.remove_prefix(1);
        return c;
    }
    bool take_if(std::string_view word) {
        if (!rest_.starts_with(word)) return false;
        rest_.remove_prefix(word.size());
        return true;
    }
    static void literal(std::vector<Piece>& pieces, char c) {
        if (pieces.empty() || pieces.back().kind != Kind::literal) pieces.push_back({});
        pieces.back().text += c;
    }
    std::optional<std::size_t> count() {
        std::size_t value = 0;
        while (!rest_.empty() && rest_.front() >= '0' && rest_.front() <= '9') {
            value = value * 10 + static_cast<std::size_t>(take() - '0');
            if (value > most_width) return std::nullopt;
        }
        return value;
    }
    void flags(Piece& piece) {
        for (;; take()) {
            if (rest_.starts_with('-')) {
                piece.left = true;
            } else if (rest_.starts_with('0')) {
                piece.zeros = true;
            } else if (rest_.starts_with('+')) {
                piece.plus = true;
            } else if (rest_.starts_with(' ')) {
                piece.blank = true;
            } else if (rest_.starts_with('#')) {
                piece.alternate = true;
            } else {
                return;
            }
        }
    }
    // LP64's sizes, those of the guest.
    void size(Piece& piece) {
        static constexpr auto rows = std::to_array<std::pair<std::string_view, unsigned>>(
            {{"hh", 8}, {"h", 16}, {"ll", 64}, {"l", 64}, {"z", 64}, {"j", 64}, {"t", 64}});
        for (const auto& [word, bits] : rows) {
            if (!take_if(word)) continue;
            piece.bits = bits;
            return;
        }
    }
    bool conversion(Piece& piece) {
        flags(piece);
        const auto width = count();
        if (!width) return false;
        piece.width = *width;
        if (take_if(".")) {
            piece.precision = count();
            if (!piece.precision) return false;
        }
        size(piece);
        if (rest_.empty()) return false;
        const char letter = take();
        piece.upper = letter == 'X';
        switch (letter) {
            case 'd':
            case 'i': piece.kind = Kind::signed_number; return true;
            case 'u': return number(piece, 10);
            case 'o': return number(piece, 8);
            case 'x':
            case 'X': return number(piece, 16);
            case 'c': piece.kind = Kind::character; return true;
            case 's': piece.kind = Kind::string; return true;
            case 'p': piece.kind = Kind::pointer; return true;
            default: return false;
        }
    }
    static bool number(Piece& piece, unsigned base) {
        piece.kind = Kind::unsigned_number;
        piece.base = base;
        return true;
    }

    std::string_view rest_;
};

std::optional<AgentFormat> AgentFormat::parse(std::string_view text) {
    AgentFormat format;
    if (!Parser{text}.parse(format.pieces_)) return std::nullopt;
    format.arguments_ = static_cast<std::size_t>(
        std::ranges::count_if(format.pieces_, [](const Piece& p) { return p.kind != Kind::literal; }));
    return format;
}

std::string AgentFormat::pad(const Piece& piece, std::string text) {
    if (text.size() >= piece.width) return text;
    return piece.left ? text.append(piece.width - text.size(), ' ')
                      : std::string(piece.width - text.size(), ' ') + text;
}

std::string AgentFormat::print_number(const Piece& piece, std::uint64_t value) {
    value = low_bits(value, piece.bits);
    std::string sign;
    if (piece.kind == Kind::signed_number) {
        const bool negative = (value >> (piece.bits - 1) & 1U) != 0;
        if (negative) value = low_bits(0 - value, piece.bits);
        sign = negative ? "-" : piece.plus ? "+" : piece.blank ? " " : "";
    } else if (piece.alternate && piece.base == 16 && value != 0) {
        sign = piece.upper ? "0X" : "0x";
    }
    std::string digits = digits_of(value, piece.base, piece.upper);
    std::size_t least = piece.precision.value_or(1);
    if (piece.alternate && piece.base == 8) least = std::max(least, digits.size() + 1);
    if (piece.zeros && !piece.left && !piece.precision && piece.width > sign.size())
        least = std::max(least, piece.width - sign.size());
    if (digits.size() < least) digits.insert(0, least - digits.size(), '0');
    return pad(piece, sign + digits);
}

std::optional<std::string> AgentFormat::print(std::span<const std::uint64_t> arguments,
                                              const ReadString& read_string,
                                              std::uint64_t& unreadable) const {
    std::string out;
    for (const Piece& piece : pieces_) {
        if (piece.kind == Kind::literal) {
            out += piece.text;
            continue;
        }
        const std::uint64_t value = arguments.front();
        arguments = arguments.subspan(1);
        switch (piece.kind) {
            case Kind::string: {
                // As gdbserver has it (gdbserver/ax.cc, ax_printf()).
                auto text = value == 0 ? std::optional<std::string>{"(null)"} : read_string(value);
                if (!text) {
                    unreadable = value;
                    return std::nullopt;
                }
                out += pad(piece, text->substr(0, piece.precision.value_or(text->size())));
                break;
            }
            case Kind::character: out += pad(piece, std::string(1, static_cast<char>(value))); break;
            case Kind::pointer: {
                std::string text = "0x";
                append_hex_number(text, value);
                out += pad(piece, std::move(text));
                break;
            }
            default: out += print_number(piece, value); break;
        }
    }
    return out;
}

}  // namespace exo::rsp
