#include "rsp/scan.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

using namespace exo::rsp;

namespace {

std::size_t first_framing(const std::string& text) {
    return std::min(text.find_first_of("#$}*"), text.size());
}

}  // namespace

TEST_CASE("the first framing byte, of every value at every place") {
    for (std::size_t at = 0; at < scan_width; ++at) {
        for (int value = 0; value < 256; ++value) {
            // What follows differs from '#' by one in the lowest bit: a borrow would take it for one.
            std::string text(scan_width, '\x22');
            std::fill_n(text.begin(), at, '\xa3');
            text[at] = static_cast<char>(value);
            CAPTURE(at);
            CAPTURE(value);
            CHECK(clean_bytes(text.data()) == first_framing(text));
            if (at < 8) CHECK(clean_bytes_of_word(text.data()) == first_framing(text.substr(0, 8)));
        }
    }
}

TEST_CASE("of several framing bytes the first counts") {
    for (const std::string text :
         {"a#$}*bcdefghijkl", "abcd*efghijklmn#", "}}}}}}}}}}}}}}}}", "abcdefg$hijklmno"}) {
        CHECK(clean_bytes(text.data()) == std::min(first_framing(text), scan_width));
        CHECK(clean_bytes_of_word(text.data()) == first_framing(text.substr(0, 8)));
    }
}

TEST_CASE("a search goes on over blocks, and to the last byte") {
    for (std::size_t size = 0; size < 70; ++size) {
        std::string text(size, 'x');
        CHECK(find_framing(text) == size);
        for (std::size_t at = 0; at < size; ++at) {
            text[at] = '*';
            CHECK(find_framing(text) == at);
            text[at] = 'x';
        }
    }
}

TEST_CASE("the sum is modulo 256") {
    CHECK(sum_bytes("") == 0);
    CHECK(sum_bytes("OK") == 0x9a);
    CHECK(sum_bytes(std::string(1000, '\xff')) == 0x18);  // 255000 = 996 * 256 + 24
}
