// Who called whom, by the kernel's ORC tables and its stacks, as its own unwinder does
// (arch/x86/kernel/unwind_orc.c).
#pragma once

#include <functional>
#include <utility>

#include "os-awareness/linux/orc.h"
#include "os-awareness/os.h"

namespace exo::os {

class Unwinder {
public:
    // A stack of 16 KiB has no room for more; those of interrupts and exceptions come on top.
    static constexpr std::size_t max_frames = 2048;

    // What holds at an address; null for one that is no known code.
    using Rules = std::function<const OrcRule*(VirtualAddress)>;

    // `space` must outlive this: the kernel's.
    Unwinder(AddressSpace& space, Rules rules) : space_(&space), rules_(std::move(rules)) {}

    // From any registers: what is unavailable breaks the trace off where it is needed.
    [[nodiscard]] Backtrace unwind(const RegisterSet& registers) const;

private:
    AddressSpace* space_;
    Rules rules_;
};

}  // namespace exo::os
