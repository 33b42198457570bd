// Names of the guest's files, as the kernel's d_path() makes them.
#pragma once

#include <cstdint>
#include <string>

#include "os-awareness/linux/structures.h"
#include "os-awareness/symbols.h"

namespace exo::os {

// A struct path: a dentry, and the vfsmount through which it was reached.
struct GuestPath {
    std::uint64_t mount = 0;
    std::uint64_t dentry = 0;
    bool operator==(const GuestPath&) const = default;
};

class Paths {
public:
    Paths(const Structures& structures, const ProcessLayout& layout, const SymbolTable& symbols)
        : structures_(&structures), layout_(&layout), symbols_(&symbols) {}

    // The struct path at `address`, which is in another structure.
    [[nodiscard]] Result<GuestPath> read(VirtualAddress address) const;
    // Of a struct file: what its user has opened.
    [[nodiscard]] Result<GuestPath> of_file(std::uint64_t file) const;
    // Absolute, as seen from `root`; with " (deleted)" where its name is gone. What is not below the root is
    // named from where its mount begins, as d_path() does it.
    [[nodiscard]] Result<std::string> name(const GuestPath& path, const GuestPath& root) const;

    [[nodiscard]] Result<std::string> component(std::uint64_t dentry) const;
    // The struct mount that `vfsmount` is a part of.
    [[nodiscard]] Result<std::uint64_t> mount_of(std::uint64_t vfsmount) const;
    // Where `vfsmount` is mounted; itself and its root where it is not.
    [[nodiscard]] Result<GuestPath> mountpoint(std::uint64_t vfsmount) const;

private:
    [[nodiscard]] Result<std::string> made_name(std::uint64_t dentry) const;

    const Structures* structures_;
    const ProcessLayout* layout_;
    const SymbolTable* symbols_;
};

}  // namespace exo::os
