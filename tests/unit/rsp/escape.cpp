#include "rsp/escape.h"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

using exo::rsp::Escape;
using exo::rsp::Escaped;

namespace {

// The rule of the manual, a byte at a time.
std::string escaped_plainly(std::string_view payload) {
    std::string wire;
    for (const char c : payload) {
        if (std::string_view{"#$}*"}.find(c) == std::string_view::npos) {
            wire += c;
        } else {
            wire += '}';
            wire += static_cast<char>(c ^ 0x20);
        }
    }
    return wire;
}

void check_escape(Escape escape, std::string_view payload) {
    const std::string expected = escaped_plainly(payload);
    unsigned sum = 0;
    for (const char c : expected) sum += static_cast<unsigned char>(c);
    // A guard behind the room that it may use.
    std::string out(2 * payload.size() + 64, '\x55');
    const Escaped result = escape(payload, out.data());
    REQUIRE(result.length == expected.size());
    REQUIRE(std::string_view{out}.substr(0, result.length) == expected);
    REQUIRE(result.sum == sum % 256);
    REQUIRE(std::string_view{out}.substr(2 * payload.size()) == std::string(64, '\x55'));
}

std::vector<Escape> ways() {
    const auto of_processor = exo::rsp::escape_ways();
    std::vector<Escape> all{of_processor.begin(), of_processor.end()};
    all.push_back(exo::rsp::escape);
    return all;
}

}  // namespace

TEST_CASE("each way to escape does what the manual says, whatever the density") {
    std::mt19937 random(1);
    for (const Escape escape : ways()) {
        // One byte in so many is a framing byte; 1: all of them are.
        for (const unsigned sparse : {1U, 2U, 5U, 40U, 1000U}) {
            for (std::size_t size = 0; size < 300; ++size) {
                std::string payload(size, '\0');
                for (char& c : payload)
                    c = static_cast<char>(random() % sparse == 0 ? "#$}*"[random() % 4] : random());
                check_escape(escape, payload);
            }
        }
    }
}

TEST_CASE("each set of framing bytes among eight, at each place of a block") {
    for (const Escape escape : ways()) {
        for (unsigned mask = 0; mask < 256; ++mask) {
            for (std::size_t at = 0; at <= 64 - 8; at += 4) {
                // '\xa3' is '#' but for the top bit, and the rest tells bytes that went astray.
                std::string payload;
                for (int i = 0; i < 64; ++i) payload += static_cast<char>(0xa3 + i);
                for (unsigned bit = 0; bit < 8; ++bit) {
                    if ((mask >> bit & 1U) != 0) payload[at + bit] = "#$}*"[bit % 4];
                }
                check_escape(escape, payload);
            }
        }
    }
}

TEST_CASE("no other byte is touched") {
    std::string payload;
    for (int value = 0; value < 256; ++value) payload.append(33, static_cast<char>(value));
    for (const Escape escape : ways()) check_escape(escape, payload);
}

TEST_CASE("there is always a way that any processor has") {
    const auto found = exo::rsp::escape_ways();
    REQUIRE(!found.empty());
    MESSAGE("of three ways this processor has " << found.size());
}
