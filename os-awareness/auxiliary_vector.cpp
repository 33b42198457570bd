#include "os-awareness/auxiliary_vector.h"

#include <algorithm>
#include <array>
#include <span>

namespace exo::os {
namespace {

// sizeof(Elf32_Phdr), <elf.h>.
constexpr std::uint32_t header_of_32_bit = 32;

template <class Word>
Word value_in(std::string_view auxv, std::uint64_t type) {
    for (std::array<Word, 2> pair{}; auxv.size() >= sizeof pair; auxv.remove_prefix(sizeof pair)) {
        std::ranges::copy(std::as_bytes(std::span{auxv.substr(0, sizeof pair)}),
                          std::as_writable_bytes(std::span{pair}).begin());
        if (pair[0] == type) return pair[1];
    }
    return 0;
}

}  // namespace

std::uint64_t auxiliary_value(std::string_view auxv, std::uint64_t type) {
    return value_in<std::uint64_t>(auxv, type);
}

bool is_auxv_of_32_bit(std::string_view auxv) {
    return value_in<std::uint32_t>(auxv, at_program_header_bytes) == header_of_32_bit;
}

}  // namespace exo::os
