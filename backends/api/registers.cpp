#include "backends/api/registers.h"

#include <algorithm>
#include <cstring>

namespace exo {

std::optional<RegisterNumber> RegisterLayout::find(std::string_view name) const {
    const auto it = std::ranges::find(registers, name, &RegisterInfo::name);
    if (it == registers.end()) return std::nullopt;
    return static_cast<RegisterNumber>(it - registers.begin());
}

RegisterSet::RegisterSet(const RegisterLayout& layout)
    : layout_(&layout), bytes_(layout.size), available_(layout.registers.size()) {}

ConstBytes RegisterSet::bytes(RegisterNumber number) const {
    const auto& info = layout_->registers[number];
    return ConstBytes{bytes_}.subspan(info.offset, info.bits / 8);
}

std::optional<std::uint64_t> RegisterSet::get(RegisterNumber number) const {
    if (!available(number)) return std::nullopt;
    const auto from = bytes(number);
    std::uint64_t value = 0;
    std::memcpy(&value, from.data(), std::min(from.size(), sizeof value));
    return value;
}

void RegisterSet::set(RegisterNumber number, std::uint64_t value) {
    set_bytes(number, std::as_bytes(std::span{&value, 1}));
}

void RegisterSet::set_bytes(RegisterNumber number, ConstBytes value) {
    const auto& info = layout_->registers[number];
    const std::size_t size = info.bits / 8;
    const std::size_t have = std::min(size, value.size());
    std::memcpy(bytes_.data() + info.offset, value.data(), have);
    std::memset(bytes_.data() + info.offset + have, 0, size - have);
    available_.at(number) = true;
}

void RegisterSet::set_unavailable(RegisterNumber number) {
    const auto& info = layout_->registers[number];
    std::memset(bytes_.data() + info.offset, 0, info.bits / 8);
    available_.at(number) = false;
}

}  // namespace exo
