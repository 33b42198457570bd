// ORC, the unwind tables that an x86-64 kernel carries in its own image (CONFIG_UNWINDER_ORC): for each range
// of code, how to get from its registers to its caller's. Written by objtool; facts from
// arch/x86/include/asm/orc_types.h and arch/x86/kernel/unwind_orc.c.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/memory.h"
#include "os-awareness/symbols.h"

namespace exo::os {

// struct orc_entry has always been s16 sp_offset, s16 bp_offset and 16 bits, read in four ways.
enum class OrcLayout : std::uint8_t {
    v1,  // 4.14 (39358a033b2e): 2 bits of type, `end`
    v2,  // 6.3 (ffb1b4a41016): `signal` before `end`
    v3,  // 6.4 (fb799447ae29): 3 bits of type, with undefined and end of stack among them; `signal`
    v4,  // 7.1: registers renumbered, else as v3
};
std::string_view to_string(OrcLayout layout);

enum class OrcBase : std::uint8_t {
    undefined,
    previous_sp,  // the caller's stack pointer, DWARF's CFA
    ax,
    dx,
    di,
    bp,
    sp,
    r10,
    r13,
    bp_indirect,  // what is saved at bp + offset
    sp_indirect,  // see OrcRow
};

enum class OrcType : std::uint8_t {
    undefined,     // nothing is known of this code, or it is none
    end_of_stack,  // entry, boot and fork: there is no caller
    call,          // sp base + offset is the caller's sp, the return address is below it
    regs,          // sp base + offset is the address of a struct pt_regs
    regs_partial,  // the same for the five words that the CPU pushes (iret frame)
};

struct OrcRule {
    OrcType type = OrcType::undefined;
    // For sp_indirect the offset is added to what is saved at sp where the type is `call` (aafeb14e9da2), and
    // to sp before where it is `regs` (UNWIND_HINT_REGS indirect=1, gone since).
    OrcBase sp = OrcBase::undefined;
    OrcBase bp = OrcBase::undefined;  // undefined: bp is the caller's; else it is saved at the base + offset
    std::int16_t sp_offset = 0;
    std::int16_t bp_offset = 0;

    [[nodiscard]] bool has_caller() const {
        return type != OrcType::undefined && type != OrcType::end_of_stack;
    }
    bool operator==(const OrcRule&) const = default;
};

// Holds from `address` to the next row's.
struct OrcRow {
    VirtualAddress address{};
    OrcRule rule;
};

// Where a table is: of the kernel itself, or of a module (struct module, arch.orc_unwind_ip, arch.orc_unwind,
// arch.num_orcs).
struct OrcLocation {
    VirtualAddress ips{};
    VirtualAddress entries{};
    std::uint64_t count = 0;
};

struct OrcTable {
    static constexpr std::uint64_t max_rows = 2'000'000;  // stock kernels have 0.3 to 0.5 million
    static constexpr std::size_t entry_bytes = 6;

    std::vector<OrcRow> rows;  // by address, one for each
    OrcLayout layout = OrcLayout::v1;
    std::string layout_found_by;
    std::size_t malformed = 0;  // entries that make no sense; they became rows of type undefined

    // What holds at `address`, of the rows from `begin` on; null where there is none.
    [[nodiscard]] const OrcRule* rule_at(VirtualAddress begin, VirtualAddress address) const;
    [[nodiscard]] std::string description() const;  // "434250 rows, layout v3 (.orc_header)"
};

// The kernel's own; not_found when it has none (frame pointers) or its symbols do not say where.
Result<OrcLocation> find_orc(const SymbolTable& symbols);

// Which layout `entries` have, by what is valid in each; bad_data when they are valid in none.
Result<OrcLayout> detect_orc_layout(ConstBytes entries);

// What is known of a table without decoding its rows.
struct OrcSummary {
    OrcLocation location;
    OrcLayout layout = OrcLayout::v1;
    std::string layout_found_by;
};

// The kernel's own table: there is one, of a known layout. Errors as read_kernel_orc.
Result<OrcSummary> summarize_kernel_orc(AddressSpace& space, const SymbolTable& symbols);

// The kernel's own table. Its layout is what .orc_header says, else what its entries look like.
Result<OrcTable> read_kernel_orc(AddressSpace& space, const SymbolTable& symbols);

// A module has the layout of its kernel: what differs is not loaded (module_finalize).
Result<OrcTable> read_orc(AddressSpace& space, const OrcLocation& location, OrcLayout layout);

}  // namespace exo::os
