// What is left of a packet's arguments: the only way to take them apart.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "rsp/hex.h"
#include "rsp/thread_id.h"

namespace exo::rsp {

// Takes from the front. What does not match is left where it is, and says so by false or nothing.
class Cursor {
public:
    explicit Cursor(std::string_view text) : rest_(text) {}

    bool done() const { return rest_.empty(); }
    std::string_view rest() const { return rest_; }

    bool take(char c) {
        if (!rest_.starts_with(c)) return false;
        rest_.remove_prefix(1);
        return true;
    }
    bool take(std::string_view word) {
        if (!rest_.starts_with(word)) return false;
        rest_.remove_prefix(word.size());
        return true;
    }
    // What stands before the first of `stops`, or all there is; the stop itself stays.
    std::string_view take_until(std::string_view stops) {
        const std::string_view taken = rest_.substr(0, rest_.find_first_of(stops));
        rest_.remove_prefix(taken.size());
        return taken;
    }
    // All of the hex digits there are; nothing when there is none, or more than 16.
    std::optional<std::uint64_t> take_number() {
        const std::string_view digits = rest_.substr(0, rest_.find_first_not_of("0123456789abcdefABCDEF"));
        const std::optional<std::uint64_t> number = parse_hex_number(digits);
        if (number) rest_.remove_prefix(digits.size());
        return number;
    }

private:
    std::string_view rest_;
};

}  // namespace exo::rsp
