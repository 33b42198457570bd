// The pid table of the initial pid namespace: struct pid of every task, by number.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backends/api/memory.h"
#include "os-awareness/linux/struct_layout.h"

namespace exo::os {

struct PidEntry {
    std::uint32_t number = 0;
    std::uint64_t task = 0;  // task_struct address
};

// In order of numbers. Entries whose struct pid no task has any more are left out. What cannot be read is
// said in `problems`, the rest is returned. Reads at most `limit` entries.
std::vector<PidEntry> read_pid_table(AddressSpace& space, const StructLayout& layout,
                                     std::uint64_t pid_namespace, std::size_t limit,
                                     std::vector<std::string>& problems);

}  // namespace exo::os
