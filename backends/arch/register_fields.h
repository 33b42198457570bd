// Registers in structures of a hypervisor's, as a table of where each one is.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "backends/api/registers.h"

namespace exo::x86 {

struct Field {
    RegisterNumber number = 0;
    std::uint16_t offset = 0;  // bytes
    std::uint8_t size = 0;
};

#define EXO_FIELD(structure, number, member) \
    ::exo::x86::Field { number, offsetof(structure, member), sizeof(structure::member) }

template <class Fields>
const Field* field_of(const Fields& fields, RegisterNumber number) {
    const auto found = std::ranges::find(fields, number, &Field::number);
    return found == fields.end() ? nullptr : &*found;
}

template <class Fields>
void fill_from(RegisterSet& registers, const Fields& fields, ConstBytes from) {
    for (const auto& field : fields)
        registers.set_bytes(field.number, from.subspan(field.offset, field.size));
}

// False for a register that has no place there.
template <class Fields>
bool put_into(const Fields& fields, MutableBytes to, const RegisterSet& values, RegisterNumber number) {
    const Field* field = field_of(fields, number);
    if (field == nullptr) return false;
    const auto bytes = values.bytes(number);
    const auto place = to.subspan(field->offset, field->size);
    std::ranges::fill(place, std::byte{});
    std::ranges::copy(bytes.first(std::min(place.size(), bytes.size())), place.begin());
    return true;
}

template <class Structure>
ConstBytes bytes_of(const Structure& structure) {
    return std::as_bytes(std::span{&structure, 1});
}

template <class Structure>
MutableBytes writable_bytes_of(Structure& structure) {
    return std::as_writable_bytes(std::span{&structure, 1});
}

}  // namespace exo::x86
