// FPU and vector registers of a task as the kernel saved them: struct fpu of its task, and in it the area
// that XSAVE, XSAVES or FXSAVE wrote.
#pragma once

#include <cstdint>
#include <optional>

#include "backends/api/memory.h"
#include "os-awareness/linux/btf.h"
#include "os-awareness/linux/struct_layout.h"
#include "os-awareness/user_registers.h"

namespace exo::os {

class SavedFpu {
public:
    // `btf` may be null: nothing is known then.
    SavedFpu(AddressSpace& kernel, const Btf* btf);

    // The struct fpu of a task, as fpu_fpregs_owner_ctx names it.
    [[nodiscard]] std::optional<VirtualAddress> address_of(std::uint64_t task) const;
    // Whether it was loaded on that CPU last, and not changed in memory since (fpregs_state_valid(),
    // arch/x86/kernel/fpu/context.h).
    [[nodiscard]] bool was_last_on(std::uint64_t task, std::uint32_t cpu) const;
    // Into `out`. `xsave`: the kernel uses XSAVE (CR4.OSXSAVE), else FXSAVE. Without a word where it cannot
    // be told: the registers stay unavailable.
    void read(std::uint64_t task, bool xsave, UserRegisters& out) const;

private:
    [[nodiscard]] std::optional<VirtualAddress> area_of(std::uint64_t task) const;

    AddressSpace* kernel_;
    std::optional<std::uint64_t> fpu_;   // from the start of a task_struct
    Field last_cpu_, fpstate_;           // of struct fpu
    std::optional<std::uint64_t> area_;  // of struct fpstate; of struct fpu where there is none
};

}  // namespace exo::os
