// From a name to a file, by what the kernel remembers of its folders (the dentry cache) and its mounts.
#pragma once

#include <cstdint>
#include <string_view>

#include "os-awareness/linux/file_pages.h"
#include "os-awareness/linux/paths.h"

namespace exo::os {

class PathLookup {
public:
    PathLookup(const Structures& structures, const ProcessLayout& layout, const Paths& paths,
               const FilePages& files)
        : structures_(&structures), layout_(&layout), paths_(&paths), files_(&files) {}

    // Of an absolute path below `root`, symbolic links followed. not_found where there is no such file, or
    // the kernel does not remember it.
    [[nodiscard]] Result<GuestPath> find(const GuestPath& root, std::string_view path) const;

private:
    [[nodiscard]] Result<GuestPath> child(const GuestPath& folder, std::string_view name) const;
    [[nodiscard]] Result<GuestPath> parent(GuestPath at, const GuestPath& root) const;
    [[nodiscard]] Result<GuestPath> mounted_on(GuestPath at) const;
    // Where a symbolic link leads; empty for what is none.
    [[nodiscard]] Result<std::string> link(std::uint64_t dentry) const;

    const Structures* structures_;
    const ProcessLayout* layout_;
    const Paths* paths_;
    const FilePages* files_;
};

}  // namespace exo::os
