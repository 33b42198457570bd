// Who called whom, by the kernel's ORC tables and its stacks, as its own unwinder does
// (arch/x86/kernel/unwind_orc.c).
#pragma once

#include <vector>

#include "os-awareness/linux/orc.h"
#include "os-awareness/os.h"

namespace exo::os {

class Unwinder {
public:
    // A stack of 16 KiB has no room for more; those of interrupts and exceptions come on top.
    static constexpr std::size_t max_frames = 2048;

    // `space` must outlive this: the kernel's.
    explicit Unwinder(AddressSpace& space) : space_(&space) {}

    // Code from `begin` up to `end`, of the kernel itself or of a module.
    void add(OrcTable table, VirtualAddress begin, VirtualAddress end);

    // From any registers: what is unavailable breaks the trace off where it is needed.
    [[nodiscard]] Backtrace unwind(const RegisterSet& registers) const;

    // Null for addresses of no code that was added.
    [[nodiscard]] const OrcRule* rule_at(VirtualAddress address) const;

private:
    struct Code {
        VirtualAddress begin{}, end{};
        OrcTable table;
    };

    AddressSpace* space_;
    std::vector<Code> code_;
};

}  // namespace exo::os
