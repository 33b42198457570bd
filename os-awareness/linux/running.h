// Which tasks the vCPUs execute: of all vCPUs with the list of tasks at hand, or of one without it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "os-awareness/linux/percpu.h"
#include "os-awareness/linux/tasks.h"

namespace exo::os {

struct RunningTasks {
    PerCpu& per_cpu;
    TaskList& list;
    AddressSpace& kernel;
    // Physical address of the page tables of an mm_struct.
    std::function<Result<PhysicalAddress>(std::uint64_t mm)> root_of;

    // By vCPU, after refresh() of both. A task that is in no list is added to it; none is on two vCPUs.
    std::vector<VcpuTask> all(std::span<const RegisterSet> vcpus, std::vector<std::string>& problems) const;

    // The task of one vCPU, read now, with no look at the lists and at the other CPUs: what all() would find.
    // `last` is what all() found last. Nothing where that is not sure: its CPU is not told by its GDT or GS
    // base, or was not this vCPU's, or not its alone; the task does not say itself that it is on that CPU; it
    // is in no list (it exits), so that another can have its TID.
    [[nodiscard]] std::optional<TaskRecord> one(const RegisterSet& registers, std::uint32_t vcpu,
                                                std::span<const VcpuTask> last) const;
};

}  // namespace exo::os
