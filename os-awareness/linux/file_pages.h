// Pages of files in the guest's page cache: struct address_space.i_pages, an XArray (lib/xarray.c).
#pragma once

#include <cstdint>
#include <optional>

#include "os-awareness/linux/structures.h"
#include "os-awareness/process.h"
#include "os-awareness/symbols.h"

namespace exo::os {

class FilePages {
public:
    FilePages(const Structures& structures, const ProcessLayout& layout, const SymbolTable& symbols)
        : structures_(&structures), layout_(&layout), symbols_(&symbols) {}

    // What is known of a struct inode.
    struct Inode {
        FileId id;
        std::uint64_t size = 0;  // bytes
        std::uint64_t mode = 0;  // i_mode: type and permissions
        std::uint64_t mapping = 0;
        bool in_memory_only = false;  // its file system has no other place: what is not there is a hole
        bool on_disk = false;         // its file system is on a block device
    };
    [[nodiscard]] Result<Inode> inode(std::uint64_t address) const;

    // The page of that number. Nothing for a hole, which reads as zeros. bad_address when it is not in
    // memory, or was not read from the disk yet.
    [[nodiscard]] Result<std::optional<PhysicalAddress>> page(const Inode& inode, std::uint64_t index) const;

    // As Processes::read_file().
    [[nodiscard]] Result<std::size_t> read(const Inode& inode, std::uint64_t offset, MutableBytes out) const;

    // As Processes::is_private_page().
    [[nodiscard]] Result<bool> is_private(PhysicalAddress page) const;

private:
    [[nodiscard]] Result<std::uint64_t> pages_start() const;
    [[nodiscard]] Result<std::uint64_t> entry(std::uint64_t mapping, std::uint64_t index) const;
    [[nodiscard]] Result<PhysicalAddress> in_folio(std::uint64_t folio, std::uint64_t index) const;

    const Structures* structures_;
    const ProcessLayout* layout_;
    const SymbolTable* symbols_;
};

}  // namespace exo::os
