// The kernel's maple tree (lib/maple_tree.c), in which a process has its mappings.
#pragma once

#include <cstdint>
#include <functional>

#include "os-awareness/linux/structures.h"

namespace exo::os {

struct MapleEntry {
    std::uint64_t first = 0;
    std::uint64_t last = 0;  // inclusive
    std::uint64_t pointer = 0;
};

// Calls `visit` for each entry in order, until that fails. `root` is maple_tree.ma_root. bad_data where the
// tree contradicts itself: a node met twice, pivots that do not ascend, more nodes than `limit`.
Result<void> walk_maple_tree(const Structures& structures, const ProcessLayout& layout, std::uint64_t root,
                             std::size_t limit, const std::function<Result<void>(const MapleEntry&)>& visit);

}  // namespace exo::os
