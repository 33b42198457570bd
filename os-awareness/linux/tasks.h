// Every task of the guest: by the list of thread groups, by the pid table, by the CPUs.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "os-awareness/linux/kernel_image.h"
#include "os-awareness/linux/list_walk.h"
#include "os-awareness/linux/percpu.h"
#include "os-awareness/linux/struct_layout.h"
#include "os-awareness/os.h"

namespace exo::os {

// A task_struct as it was read, and what does not concern users of Task.
struct TaskRecord {
    std::uint64_t address = 0;
    std::uint32_t tid = 0;
    std::uint32_t tgid = 0;
    std::uint32_t cpu = 0;
    std::uint64_t state = 0;       // __state
    std::uint64_t exit_state = 0;  // EXIT_ZOMBIE, EXIT_DEAD
    std::uint64_t flags = 0;       // PF_*
    bool on_cpu = false;
    std::string comm{};
    std::uint64_t stack = 0;  // lowest address; 0: freed
    std::uint64_t mm = 0;
    std::uint64_t signal = 0;
    std::uint64_t sp = 0;  // thread.sp, of use while it runs on no CPU
    std::uint64_t fsbase = 0, gsbase = 0;
    ListLinks tasks{}, thread_node{};
    bool idle = false;
    std::uint64_t leader = 0;  // task_struct of the leader of its thread group, 0 if not known

    [[nodiscard]] bool kernel_thread() const;
    // The letter that ps prints.
    [[nodiscard]] char state_letter() const;
};

// What users of Task see of it, but for what depends on where it runs: vcpu and wchan. `leader` may be null.
Task task_of(const TaskRecord& record, const TaskRecord* leader);

// As ps and /proc/PID/stat print it (fs/proc/array.c).
char state_letter(std::uint64_t state, std::uint64_t exit_state);

// What is not printable ASCII becomes '?'; ends at the first NUL.
std::string printable(ConstBytes bytes);

class TaskReader {
public:
    TaskReader(AddressSpace& space, const StructLayout& layout) : space_(&space), layout_(&layout) {}

    void set_cpu_field(Field cpu) { cpu_ = cpu; }
    // One read for all fields. bad_data when it cannot be a task: the message says why.
    Result<TaskRecord> read(std::uint64_t address);

private:
    AddressSpace* space_;
    const StructLayout* layout_;
    Field cpu_;
    std::vector<std::byte> buffer_;
};

class TaskList {
public:
    // A guest can link as many tasks as its RAM holds bytes; beyond this the rest is left out, and said so.
    static constexpr std::size_t max_tasks = 1U << 18;

    TaskList(KernelImage& image, const StructLayout& layout, std::uint64_t init_task);

    // Idle tasks first, then thread groups in the order of the list, the leader before its threads.
    void refresh(const PerCpu& per_cpu, std::vector<std::string>& problems);

    [[nodiscard]] std::span<const TaskRecord> records() const { return records_; }
    [[nodiscard]] const TaskRecord* find(std::uint64_t address) const;
    // Reads a task that is in no list (it exits and is unhashed already) and adds it; null if it is none.
    const TaskRecord* add_unlisted(std::uint64_t address);

    // A task as it is now; what refresh() found stays as it is.
    Result<TaskRecord> read(std::uint64_t address) { return reader_.read(address); }
    // The same of one that `cpu` executes, with what refresh() would say of it. Nothing where it is not sure
    // that a list has it, or that it is on this CPU alone.
    [[nodiscard]] std::optional<TaskRecord> read_running(std::uint64_t address, const Cpu& cpu);

private:
    const TaskRecord* add(std::uint64_t address, Result<TaskRecord>&& record);
    Result<void> spend();
    Result<TaskRecord> read_listed(std::uint64_t address);
    [[nodiscard]] bool is_linked(const TaskRecord& task);
    void add_idle(const PerCpu& per_cpu, std::vector<std::string>& problems);
    void walk_leaders(std::vector<std::string>& problems);
    void walk_threads(std::uint64_t leader, std::vector<std::string>& problems);
    void compare_with_pid_table(std::vector<std::string>& problems);

    KernelImage* image_;
    const StructLayout* layout_;
    std::uint64_t init_task_;
    TaskReader reader_;
    std::size_t steps_ = 0;  // along lists, in this refresh
    std::vector<TaskRecord> records_;
    std::unordered_map<std::uint64_t, std::size_t> by_address_;  // index into records_
};

}  // namespace exo::os
