#include "os-awareness/auxiliary_vector.h"

#include <doctest/doctest.h>

#include <array>
#include <span>

#include "backends/api/memory.h"

namespace exo::os {
namespace {

template <class Word, std::size_t Count>
std::string vector_of(const std::array<Word, Count>& words) {
    return std::string{as_text(std::as_bytes(std::span{words}))};
}

TEST_CASE("a program's size is seen in its auxiliary vector") {
    // AT_PAGESZ, AT_PHDR, AT_PHENT, AT_PHNUM
    const std::array<std::uint32_t, 10> narrow{6, 4096, 3, 0x08048034, 4, 32, 5, 9, 0, 0};
    const std::array<std::uint64_t, 10> wide{6, 4096, 3, 0x400040, 4, 56, 5, 9, 0, 0};
    CHECK(is_auxv_of_32_bit(vector_of(narrow)));
    CHECK_FALSE(is_auxv_of_32_bit(vector_of(wide)));
    CHECK_FALSE(is_auxv_of_32_bit(""));
    CHECK_FALSE(is_auxv_of_32_bit(vector_of(narrow).substr(0, 22)));
    CHECK(auxiliary_value(vector_of(wide), at_program_headers) == 0x400040);
    CHECK(auxiliary_value(vector_of(wide), at_program_header_count) == 9);
    CHECK(auxiliary_value(vector_of(wide), 33) == 0);
}

}  // namespace
}  // namespace exo::os
