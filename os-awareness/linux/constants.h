// Numbers of x86-64 Linux that more than one file here needs.
#pragma once

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

}  // namespace exo::os
