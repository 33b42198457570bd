#include "os-awareness/linux/running.h"

#include <algorithm>

namespace exo::os {

std::vector<VcpuTask> RunningTasks::all(std::span<const RegisterSet> vcpus,
                                        std::vector<std::string>& problems) const {
    const auto size = per_cpu.stack_size();
    const StackLookup lookup{
        .stack_of = [&](std::uint64_t task) -> std::uint64_t {
            const auto* record = list.add_unlisted(task);
            return record != nullptr ? record->stack : 0;
        },
        .owner_of = [&](std::uint64_t rsp) -> std::uint64_t {
            const auto holds = [&](const TaskRecord& t) {
                return t.stack != 0 && rsp > t.stack && rsp - t.stack <= size;
            };
            const auto it = std::ranges::find_if(list.records(), holds);
            return it != list.records().end() ? it->address : 0;
        },
        .root_of = [&](std::uint64_t task) -> std::optional<std::uint64_t> {
            const auto* record = list.add_unlisted(task);
            if (record == nullptr || record->mm == 0) return std::nullopt;
            const auto root = root_of(record->mm);
            return root ? std::optional{raw(*root)} : std::nullopt;
        },
        .stack_size = size,
    };
    std::vector<VcpuTask> current;
    for (std::uint32_t i = 0; i < vcpus.size(); ++i) {
        auto found = current_on_vcpu(vcpus[i], i, per_cpu.cpus(), lookup, kernel);
        const auto same = [&](const VcpuTask& other) { return other.task == found.task; };
        if (found.task == 0) {
            problems.push_back("vCPU " + std::to_string(i) + ": " + found.why_not);
        } else if (list.add_unlisted(found.task) == nullptr) {
            problems.push_back("vCPU " + std::to_string(i) + ": its current task at " + hex(found.task) +
                               " cannot be read");
            found.task = 0;
        } else if (std::ranges::any_of(current, same)) {
            problems.push_back("vCPU " + std::to_string(i) + ": its current task at " + hex(found.task) +
                               " is another vCPU's");
            found.task = 0;
        }
        current.push_back(std::move(found));
    }
    return current;
}

std::optional<TaskRecord> RunningTasks::one(const RegisterSet& registers, std::uint32_t vcpu,
                                            std::span<const VcpuTask> last) const {
    std::vector<Cpu> cpus;
    for (const Cpu* cpu : cpus_named_by(registers, per_cpu.cpus(), kernel)) {
        const auto now = per_cpu.read_again(*cpu);
        if (!now) return std::nullopt;
        cpus.push_back(*now);
    }
    const StackLookup lookup{
        .stack_of = [&](std::uint64_t task) -> std::uint64_t {
            const auto record = list.read(task);
            return record ? record->stack : 0;
        },
        .owner_of = [](std::uint64_t) -> std::uint64_t { return 0; },
        .root_of = [](std::uint64_t) -> std::optional<std::uint64_t> { return std::nullopt; },
        .stack_size = per_cpu.stack_size(),
    };
    const auto found = current_on_vcpu(registers, vcpu, cpus, lookup, kernel);
    const auto cpu = std::ranges::find_if(cpus, [&](const Cpu& c) { return found.cpu == c.number; });
    if (found.task == 0 || cpu == cpus.end()) return std::nullopt;
    // Which vCPU a CPU is does not change, and only then is its current task no other vCPU's.
    if (vcpu >= last.size() || last[vcpu].cpu != found.cpu) return std::nullopt;
    if (std::ranges::count(last, found.cpu, &VcpuTask::cpu) != 1) return std::nullopt;
    return list.read_running(found.task, *cpu);
}

}  // namespace exo::os
