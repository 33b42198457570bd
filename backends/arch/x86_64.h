// x86-64: register layout as gdb and lldb want it, and page-table parameters.
//
// gdb-known features first (org.gnu.gdb.i386.core, .sse, .avx, .segments: gdb/features/i386/*.xml), so that
// $ymm0 and $fs_base work, then a private feature for control registers. The layout is the same in every
// mode of the CPU: a register packet that changes its length makes gdb give up ("g packet reply is too
// long").
#pragma once

#include "backends/api/registers.h"

namespace exo::x86 {

// gdb register numbers; the layout's table is in this order.
// clang-format off
enum Register : RegisterNumber {
    rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15,
    rip, eflags, cs, ss, ds, es, fs, gs,
    st0, st7 = st0 + 7, fctrl, fstat, ftag, fiseg, fioff, foseg, fooff, fop,
    xmm0, xmm15 = xmm0 + 15, mxcsr,
    ymm0h, ymm15h = ymm0h + 15,
    fs_base, gs_base,
    k_gs_base, cr0, cr2, cr3, cr4, cr8, efer,
    ss_base, ds_base, es_base, cs_base, gdt_base, idt_base, tr_base, tr_selector, ldt_selector,
    register_count,
};
// clang-format on

const RegisterLayout& layout();

// The same and orig_rax, with which gdb has its Linux ABI (gdb/amd64-linux-tdep.c, amd64_linux_init_abi): of
// a thread of a Linux process. Numbers are those of layout().
inline constexpr RegisterNumber orig_rax = register_count;
const RegisterLayout& process_layout();

inline constexpr std::uint64_t eflags_tf = 1U << 8;
inline constexpr std::uint64_t eflags_if = 1U << 9;
inline constexpr std::uint64_t eflags_rf = 1U << 16;
inline constexpr std::uint64_t eflags_vm = 1U << 17;
inline constexpr std::size_t debug_registers = 4;  // DR0 to DR3

inline constexpr std::uint64_t cr0_pe = 1U << 0;
inline constexpr std::uint64_t cr0_pg = 1U << 31;
inline constexpr std::uint64_t cr4_pae = 1U << 5;
inline constexpr std::uint64_t cr4_la57 = 1U << 12;
inline constexpr std::uint64_t cr4_osxsave = 1U << 18;
inline constexpr std::uint64_t efer_lma = 1U << 10;

inline bool in_user_mode(const RegisterSet& registers) { return (registers.get(cs).value_or(0) & 3U) == 3; }

// Of canonical addresses, which systems keep for themselves; reached in 64-bit mode only.
constexpr bool in_upper_half(std::uint64_t address) { return address >> 63U != 0; }

enum class PagingMode : std::uint8_t { none, bits32, pae, levels4, levels5 };

// Intel SDM vol. 3A 4.1.1; from cr0, cr4 and efer, nothing where one of them is unavailable.
std::optional<PagingMode> paging_mode(const RegisterSet& registers);
PagingMode paging_mode(std::uint64_t cr0, std::uint64_t cr4, std::uint64_t efer);

}  // namespace exo::x86
