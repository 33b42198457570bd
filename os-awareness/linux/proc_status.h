// /proc/PID/status and stat, as far as memory tells them (fs/proc/array.c, fs/proc/task_mmu.c).
#pragma once

#include <cstdint>
#include <string>

#include "os-awareness/linux/structures.h"
#include "os-awareness/os.h"

namespace exo::os {

class ProcStatus {
public:
    ProcStatus(const Structures& structures, const ProcessLayout& layout)
        : structures_(&structures), layout_(&layout) {}

    // As it is in the task, whatever bytes.
    [[nodiscard]] Result<std::string> comm(const Task& task) const;
    // In the kernel's order. What the kernel counts on each CPU by itself, and times, are not among it.
    [[nodiscard]] Result<std::string> status(const Task& task) const;
    // To `flags`: the fields after it are such counts.
    [[nodiscard]] Result<std::string> stat(const Task& task) const;

private:
    [[nodiscard]] Result<std::string> ids(const Task& task) const;
    [[nodiscard]] Result<std::string> memory(std::uint64_t mm) const;
    [[nodiscard]] Result<std::string> signals(const Task& task) const;
    [[nodiscard]] Result<std::string> capabilities(std::uint64_t cred) const;
    [[nodiscard]] Result<std::uint32_t> parent(const Task& task) const;
    [[nodiscard]] Result<std::uint32_t> number(std::uint64_t pid) const;
    [[nodiscard]] Result<std::string> terminal(std::uint64_t signal) const;
    [[nodiscard]] Result<std::uint64_t> of(const Task& task, const Member& member) const {
        return structures_->value(raw(task.address), member);
    }

    const Structures* structures_;
    const ProcessLayout* layout_;
};

}  // namespace exo::os
