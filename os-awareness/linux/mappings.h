// The mappings of a process: struct vm_area_struct, and what /proc/PID/maps says of each.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "os-awareness/linux/paths.h"
#include "os-awareness/linux/structures.h"

namespace exo::os {

// Bits of vm_flags, include/linux/mm.h.
inline constexpr std::uint64_t vm_read = 0x1, vm_write = 0x2, vm_exec = 0x4, vm_may_share = 0x80,
                               vm_uffd_missing = 0x200, vm_pfnmap = 0x400, vm_io = 0x4000;

struct Vma {
    std::uint64_t address = 0;  // of the structure
    std::uint64_t start = 0, end = 0;
    std::uint64_t flags = 0;
    std::uint64_t page_offset = 0;  // into the file, in pages
    std::uint64_t file = 0;         // struct file, 0 if none
    std::uint64_t operations = 0;
};

class Mappings {
public:
    static constexpr std::size_t most = std::size_t{1} << 18;  // of a process; vm.max_map_count is 65530

    Mappings(const Structures& structures, const ProcessLayout& layout, const Paths& paths,
             const SymbolTable& symbols)
        : structures_(&structures), layout_(&layout), paths_(&paths), symbols_(&symbols) {}

    // By address. All of them or bad_data.
    [[nodiscard]] Result<std::vector<Vma>> of(std::uint64_t mm) const;
    // The page that x86-64 has at a fixed address for old programs, which is no mapping of the process
    // (arch/x86/entry/vsyscall/vsyscall_64.c: get_gate_vma()).
    [[nodiscard]] Result<std::optional<Vma>> gate(std::uint64_t mm) const;

    // The page of the vDSO that the process has at `address` once it has touched it: one of the kernel's own
    // data (arch/x86/entry/vdso/vma.c, vdso_fault()). Nothing where that is not in its vDSO.
    [[nodiscard]] Result<std::optional<PhysicalAddress>> vdso_page(std::uint64_t mm,
                                                                   VirtualAddress address) const;

    // One line of /proc/PID/maps, with the line feed. Names are as seen from `root`.
    [[nodiscard]] Result<std::string> line(std::uint64_t mm, const Vma& vma, const GuestPath& root) const;
    // What stands at its end, empty for nothing.
    [[nodiscard]] Result<std::string> name(std::uint64_t mm, const Vma& vma, const GuestPath& root) const;
    // The inode whose pages are mapped; where file systems lie one on the other not always that of the line.
    [[nodiscard]] Result<std::uint64_t> mapped_inode(const Vma& vma) const {
        return structures_->value(vma.file, layout_->file.inode);
    }
    // The inode that the line names.
    [[nodiscard]] Result<std::uint64_t> inode(const Vma& vma) const;

private:
    [[nodiscard]] Result<Vma> read(std::uint64_t address) const;
    [[nodiscard]] Result<Vma> read_checked(std::uint64_t address, std::uint64_t mm) const;
    [[nodiscard]] Result<std::vector<Vma>> in_tree(std::uint64_t mm) const;
    [[nodiscard]] Result<std::vector<Vma>> in_list(std::uint64_t mm) const;
    [[nodiscard]] Result<std::string> given_name(const Vma& vma) const;
    [[nodiscard]] Result<std::string> special_name(const Vma& vma) const;

    const Structures* structures_;
    const ProcessLayout* layout_;
    const Paths* paths_;
    const SymbolTable* symbols_;
};

// As the kernel escapes a name in a line (seq_file_path() with "\n").
std::string in_one_line(std::string_view name);

}  // namespace exo::os
