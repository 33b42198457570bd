// Hex there and back; what is taken is even in length and all digits.
#include "rsp/hex.h"

#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text = exo::fuzz::as_text(data, size);
    exo::fuzz::require(exo::rsp::text_from_hex(exo::rsp::to_hex(text)) == text);
    const bool all_digits = text.find_first_not_of("0123456789abcdefABCDEF") == std::string_view::npos;
    exo::fuzz::require(exo::rsp::from_hex(text).has_value() == (all_digits && size % 2 == 0));
    const auto number = exo::rsp::parse_hex_number(text);
    exo::fuzz::require(number.has_value() == (all_digits && size >= 1 && size <= 16));
    if (number) {
        std::string printed;
        exo::rsp::append_hex_number(printed, *number);
        exo::fuzz::require(exo::rsp::parse_hex_number(printed) == number);
    }
    return 0;
}
