// Little-endian numbers and LEB128 (DWARF 5, 7.6) at the end of a growing buffer.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/api/memory.h"

namespace exo::os {

static_assert(std::endian::native == std::endian::little);

class ByteBuffer {
public:
    template <class T>
    void put(T value) {
        static_assert(std::is_trivially_copyable_v<T>);
        const auto at = bytes_.size();
        bytes_.resize(at + sizeof value);
        std::memcpy(&bytes_[at], &value, sizeof value);
    }
    void u8(std::uint64_t value) { bytes_.push_back(static_cast<std::byte>(value)); }
    void u16(std::uint64_t value) { put(static_cast<std::uint16_t>(value)); }
    void u32(std::uint64_t value) { put(static_cast<std::uint32_t>(value)); }
    void u64(std::uint64_t value) { put(value); }

    void uleb(std::uint64_t value) {
        for (; value >= 0x80; value >>= 7) u8(value | 0x80U);
        u8(value);
    }
    void sleb(std::int64_t value) {
        for (; value < -64 || value >= 64; value >>= 7) u8(static_cast<std::uint64_t>(value) | 0x80U);
        u8(static_cast<std::uint64_t>(value) & 0x7fU);
    }
    void text(std::string_view value) {  // with a NUL
        append(std::as_bytes(std::span{value}));
        u8(0);
    }
    void append(ConstBytes bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }

    void patch32(std::size_t at, std::uint64_t value) {
        const auto narrow = static_cast<std::uint32_t>(value);
        std::memcpy(&bytes_.at(at), &narrow, sizeof narrow);
    }

    [[nodiscard]] std::size_t size() const { return bytes_.size(); }
    [[nodiscard]] ConstBytes bytes() const { return bytes_; }
    void reserve(std::size_t size) { bytes_.reserve(size); }
    void drop(std::size_t count) { bytes_.resize(bytes_.size() - count); }
    void clear() { bytes_.clear(); }
    [[nodiscard]] std::vector<std::byte> take() { return std::exchange(bytes_, {}); }

private:
    std::vector<std::byte> bytes_;
};

}  // namespace exo::os
