// Registers of a task's user mode: in the vCPU, in the pt_regs at the top of its kernel stack, in its
// thread_struct.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "os-awareness/linux/percpu.h"
#include "os-awareness/linux/saved_fpu.h"
#include "os-awareness/linux/tasks.h"
#include "os-awareness/user_registers.h"

namespace exo::os {

// Whether a kernel that these vCPUs execute uses XSAVE.
bool uses_xsave(std::span<const RegisterSet> vcpus);
// fpu_fpregs_owner_ctx: the struct fpu whose values that CPU's registers have. Nothing where it is not known.
std::optional<std::uint64_t> fpu_owner_on(std::uint32_t cpu, const PerCpu& per_cpu, AddressSpace& kernel);

class UserRegisterReader {
public:
    // `btf` may be null: then what is in thread_struct alone is not known.
    UserRegisterReader(AddressSpace& kernel, const Btf* btf, const StructLayout& layout);

    struct Where {
        std::uint64_t stack_size = 0;
        const RegisterSet* vcpu = nullptr;  // that executes it
        bool xsave = false;
        std::optional<std::uint64_t> fpu_owner;  // on the task's CPU
    };
    // bad_data where there are none: the stack is freed, or what is on it was never in user mode.
    Result<UserRegisters> read(const TaskRecord& task, const Where& where);

private:
    struct Frame;
    Result<void> read_frame(const TaskRecord& task, const Where& where, UserRegisters& out);
    void read_segments(const TaskRecord& task, const Where& where, UserRegisters& out) const;
    void read_fpu(const TaskRecord& task, const Where& where, UserRegisters& out) const;

    AddressSpace* kernel_;
    const StructLayout* layout_;
    SavedFpu fpu_;
    Field ds_, es_, fs_, gs_;  // of task_struct.thread
};

}  // namespace exo::os
