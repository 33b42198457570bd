// What a process has open: its table of file descriptors (struct files_struct).
#pragma once

#include <cstdint>
#include <vector>

#include "os-awareness/linux/paths.h"
#include "os-awareness/process.h"

namespace exo::os {

class Descriptors {
public:
    static constexpr std::uint64_t most = std::uint64_t{1} << 20U;  // fs.nr_open

    Descriptors(const Structures& structures, const ProcessLayout& layout, const Paths& paths)
        : structures_(&structures), layout_(&layout), paths_(&paths) {}

    // Of the task_struct at `task`, by number; names as seen from `root`. All of them or an error.
    [[nodiscard]] Result<std::vector<OpenDescriptor>> of(std::uint64_t task, const GuestPath& root) const;

private:
    const Structures* structures_;
    const ProcessLayout* layout_;
    const Paths* paths_;
};

}  // namespace exo::os
