// Where monitors put guest memory: what is tried first, never what decides.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace exo::kvm {

// A guest with at least `from` bytes of memory has `low` of them at 0, the others at 4 GiB.
struct Split {
    std::uint64_t from;
    std::uint64_t low;
    std::string_view where;  // its public source
};

std::span<const Split> known_splits();

// Where memory goes on that does not fit below 4 GiB.
std::span<const std::uint64_t> known_high_starts();

// The lowest address above `address` at which the memory of a guest that has `size` of it may end to go on
// elsewhere; 0 if there is none.
std::uint64_t next_split(std::uint64_t address, std::uint64_t size);

}  // namespace exo::kvm
