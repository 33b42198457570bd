// A struct list_head ring in guest memory, walked from both ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "backends/api/memory.h"
#include "backends/api/result.h"

namespace exo::os {

struct ListLinks {
    std::uint64_t next = 0;
    std::uint64_t prev = 0;
};

struct ListWalk {
    // Addresses of the list_heads in list order, each once, without the head. Where the ring is broken, what
    // was reached from the front and then what was reached from the back.
    std::vector<std::uint64_t> nodes;
    std::string broken;  // one line: where and why; empty if the ring is closed both ways
};

// Calls `links` for each node, in the order of the walk: forward from `head`, and, when that does not come
// back to it, backward. A node ends its walk when it cannot be read, when its link back is not to where the
// walk came from, when it was met before, or when `limit` nodes are reached. If both ends stop, nodes that
// only link back wrongly are gone through after all.
ListWalk walk_list(std::uint64_t head, ListLinks head_links, std::size_t limit,
                   const std::function<Result<ListLinks>(std::uint64_t node)>& links);

}  // namespace exo::os
