// /proc/PID/smaps: of each mapping its line of maps, and what the page tables tell of it
// (fs/proc/task_mmu.c).
#pragma once

#include <string>

#include "backends/arch/page_tables.h"
#include "os-awareness/linux/file_pages.h"
#include "os-awareness/linux/mappings.h"

namespace exo::os {

class ProcSmaps {
public:
    ProcSmaps(const Mappings& mappings, const FilePages& files, PhysicalAddress zero_page)
        : mappings_(&mappings), files_(&files), zero_page_(zero_page) {}

    // Size, Rss, Anonymous and VmFlags of one mapping.
    Result<std::string> details(x86::PageTables& tables, const Vma& vma) const;

private:
    struct Counts {
        std::uint64_t resident = 0, anonymous = 0;  // bytes
    };
    Result<Counts> count(x86::PageTables& tables, const Vma& vma) const;
    Result<bool> is_of_file(const Vma& vma, const FilePages::Inode& inode, std::uint64_t address,
                            PhysicalAddress page) const;

    const Mappings* mappings_;
    const FilePages* files_;
    PhysicalAddress zero_page_;
};

}  // namespace exo::os
