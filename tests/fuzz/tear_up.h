// Changes words of a guest's memory as the input says, and takes the changes back.
#pragma once

#include <cstring>
#include <vector>

#include "fuzz.h"
#include "tests/support/guest_builder.h"

namespace exo::fuzz {

class TearUp {
public:
    // `places`: near what words are changed, and near what pointers are changed to.
    TearUp(test::GuestBuilder& guest, const std::vector<std::uint64_t>& places, Input& input)
        : guest_(guest) {
        while (!input.rest().empty() && changes_.size() < 64) {
            const auto place = places[input.byte() % places.size()];
            const VirtualAddress at{place + (input.number(2) % 1024) / 8 * 8};
            const auto kind = input.byte();
            const auto target = places[input.byte() % places.size()];
            std::uint64_t value = 0;
            std::memcpy(&value, guest_.bytes(at, sizeof value).data(), sizeof value);
            changes_.push_back({at, value});
            switch (kind % 4) {
                case 0: value = input.number(8); break;
                case 1: value = target + input.number(2) % 1024; break;
                case 2: value ^= std::uint64_t{1} << input.byte() % 64; break;
                case 3: value = (value & ~std::uint64_t{0xffffffff}) | input.number(4); break;
            }
            guest_.put(at, value);
        }
    }
    TearUp(const TearUp&) = delete;
    TearUp& operator=(const TearUp&) = delete;
    ~TearUp() {
        for (auto it = changes_.rbegin(); it != changes_.rend(); ++it) guest_.put(it->at, it->before);
    }

    [[nodiscard]] bool changed() const { return !changes_.empty(); }

private:
    struct Change {
        VirtualAddress at;
        std::uint64_t before;
    };
    test::GuestBuilder& guest_;
    std::vector<Change> changes_;
};

}  // namespace exo::fuzz
