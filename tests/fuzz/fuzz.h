// What fuzz targets share.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace exo::fuzz {

// A property of the parser under test; in every build, unlike assert.
inline void require(bool holds) {
    if (!holds) std::abort();
}

inline std::string_view as_text(const std::uint8_t* data, std::size_t size) {
    return {reinterpret_cast<const char*>(data), size};
}

// Cuts an input up into values; zeros when it has run out.
class Input {
public:
    Input(const std::uint8_t* data, std::size_t size) : rest_(as_text(data, size)) {}

    std::uint8_t byte() { return static_cast<std::uint8_t>(number(1)); }
    std::uint64_t number(std::size_t bytes = 8) {
        std::uint64_t value = 0;
        for (const char c : text(bytes)) value = value << 8 | static_cast<std::uint8_t>(c);
        return value;
    }
    std::string_view text(std::size_t size) {
        const std::string_view taken = rest_.substr(0, size);
        rest_.remove_prefix(taken.size());
        return taken;
    }
    std::string_view rest() const { return rest_; }

private:
    std::string_view rest_;
};

}  // namespace exo::fuzz
