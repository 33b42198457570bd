// Numbers of x86-64 Linux that more than one file here needs.
#pragma once

#include <cstddef>
#include <cstdint>

namespace exo::os {

// Set in each address of the kernel.
inline constexpr std::uint64_t kernel_half = std::uint64_t{1} << 63;

inline constexpr std::uint32_t pf_kthread = 0x00200000;  // include/linux/sched.h

// Bits 51:12 of CR3; what is around it are PCID (11:0), LAM (61, 62) and no-flush (63).
inline constexpr std::uint64_t cr3_address = 0x000f'ffff'ffff'f000;

// Under KPTI the user's top table is the odd one of a pair of pages (arch/x86/include/asm/pgtable.h:
// PTI_PGTABLE_SWITCH_BIT is PAGE_SHIFT).
inline constexpr std::uint64_t kpti_user_bit = 0x1000;

// The smallest pages, which files are kept in.
inline constexpr unsigned small_page_shift = 12;
inline constexpr std::uint64_t small_page = 1U << small_page_shift;

// Of an entry of a page table: the page, and _PAGE_PROTNONE, of a page that is there and nobody may use
// (arch/x86/include/asm/pgtable_types.h).
inline constexpr std::uint64_t entry_address = 0x000f'ffff'ffff'f000;
inline constexpr std::uint64_t entry_no_access = 0x100;

inline constexpr std::size_t comm_bytes = 16;  // TASK_COMM_LEN

// S_IFMT, S_IFREG, S_IFLNK (include/uapi/linux/stat.h).
inline constexpr std::uint64_t file_type = 0170000, regular_file = 0100000, symbolic_link = 0120000;

// Entries of XArrays and maple trees that are no pointer to what is stored: up to `largest_reserved` they
// mean something of their own, above they point to a node (xa_is_internal(), xa_is_node(),
// include/linux/xarray.h).
inline constexpr std::uint64_t largest_reserved = 4096;
inline constexpr bool is_internal_entry(std::uint64_t entry) { return (entry & 3) == 2; }

}  // namespace exo::os
