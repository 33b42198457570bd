// The format string of an agent expression's printf. gdb sends it as the user typed it, with its escape
// sequences (gdb/breakpoint.c, parse_cmd_to_aexpr()); what is allowed is what gdb's own printf takes
// (gdbsupport/format.cc), without floating point, which agent expressions do not have.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace exo::rsp {

class AgentFormat {
public:
    // A string at an address of the guest's, as far as it can be read, nothing where it cannot.
    using ReadString = std::function<std::optional<std::string>(std::uint64_t address)>;

    static constexpr std::size_t most_width = 4096;

    static std::optional<AgentFormat> parse(std::string_view text);

    [[nodiscard]] std::size_t arguments() const { return arguments_; }
    // Nothing, and the address in `unreadable`, where a string cannot be read. As many arguments as
    // arguments() says.
    [[nodiscard]] std::optional<std::string> print(std::span<const std::uint64_t> arguments,
                                                   const ReadString& read_string,
                                                   std::uint64_t& unreadable) const;

private:
    enum class Kind : std::uint8_t { literal, signed_number, unsigned_number, character, string, pointer };
    struct Piece {
        Kind kind = Kind::literal;
        std::string text;  // of a literal
        bool left = false, zeros = false, plus = false, blank = false, alternate = false, upper = false;
        std::size_t width = 0;
        std::optional<std::size_t> precision;
        unsigned bits = 32;
        unsigned base = 10;
    };
    class Parser;
    static std::string print_number(const Piece& piece, std::uint64_t value);
    static std::string pad(const Piece& piece, std::string text);

    std::vector<Piece> pieces_;
    std::size_t arguments_ = 0;
};

}  // namespace exo::rsp
