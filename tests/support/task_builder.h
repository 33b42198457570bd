// Tasks for GuestBuilder's kernel: BTF of a made-up task_struct, per-CPU areas, lists and the pid table, as
// the kernel would have them. Tests then edit() what they are about.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "os-awareness/linux/list_walk.h"
#include "tests/support/btf_writer.h"
#include "tests/support/guest_builder.h"

namespace exo::test {

using os::ListLinks;

// This kernel's structures. Of a size and order that no real one has.
struct FakeThread {
    std::uint64_t pad[4];
    std::uint64_t sp, fsbase, gsbase;
};
struct FakeTask {
    std::uint32_t cpu, pad1;
    std::uint32_t state, pad2;
    std::uint64_t stack;
    std::uint32_t usage, flags;
    std::uint64_t pad3[40];
    ListLinks tasks;
    std::uint64_t mm, active_mm;
    std::uint32_t exit_state, exit_code, exit_signal, pad4;
    std::uint32_t pid, tgid;
    std::uint64_t signal, group_leader;
    ListLinks thread_node;
    ListLinks pid_links[4];  // hlist_node: next, pprev
    char comm[16];
    std::uint32_t on_cpu, dead_cpu;
    FakeThread thread;
};
struct FakeSignal {
    std::uint64_t pad;
    ListLinks thread_head;
};
struct FakeMm {
    std::uint64_t pad[3];
    std::uint64_t pgd;
};
struct FakeRq {
    std::uint64_t pad, curr, idle;
    std::uint32_t cpu, pad2;
};
struct FakeFrame {
    std::uint64_t r15, r14, r13, r12, bx, bp, ret_addr;
};
struct FakePid {
    std::uint64_t pad;
    std::uint64_t tasks[4];  // hlist_head
};
struct FakeNode {
    std::uint8_t shift, offset, pad[6];
    std::uint64_t slots[64];
};
struct FakePidNamespace {
    std::uint64_t pad, xa_head;
    std::uint32_t idr_base, pad2;
};

struct TaskOptions {
    std::uint32_t tid = 0;
    std::string_view comm = "task";
    std::uint32_t state = 1;  // TASK_INTERRUPTIBLE
    std::uint32_t exit_state = 0;
    bool user = true;
    std::uint32_t cpu = 0;
};

class TaskBuilder {
public:
    static constexpr std::uint64_t stack_bytes = 16384;
    // Addresses of the per-CPU variables in their section.
    static constexpr std::uint64_t current_task = 0x800, cpu_number = 0x808, runqueues = 0x1000,
                                   gdt_page = 0x2000, area_bytes = 0x4000;

    // With the idle tasks swapper/0 … and nothing else. `btf` false: a kernel without it.
    explicit TaskBuilder(GuestBuilder& guest, std::uint32_t cpus = 2, bool btf = true);

    std::uint64_t add_process(const TaskOptions& options);
    std::uint64_t add_thread(std::uint64_t leader, const TaskOptions& options);
    // What is in the pid table only.
    void unlink(std::uint64_t task);

    // Makes `task` the current one of `cpu`, as its scheduler and get_current() have it.
    void run(std::uint32_t cpu, std::uint64_t task);

    [[nodiscard]] std::uint64_t init_task() const { return idle_.front(); }
    [[nodiscard]] std::uint64_t idle(std::uint32_t cpu) const { return idle_.at(cpu); }
    [[nodiscard]] std::uint64_t area(std::uint32_t cpu) const { return areas_.at(cpu); }
    [[nodiscard]] std::uint64_t pid_namespace() const { return pid_namespace_; }
    [[nodiscard]] std::uint64_t pid_struct(std::uint32_t tid) const;
    [[nodiscard]] std::uint64_t per_cpu_offsets() const { return offsets_; }
    // In the text of the kernel: in the scheduler, and after a call in a function of the name sleeper.
    [[nodiscard]] std::uint64_t in_schedule() const { return schedule_ + 0x20; }
    [[nodiscard]] std::uint64_t in_sleeper() const { return sleeper_ + 0x10; }
    [[nodiscard]] std::uint64_t sleeper() const { return sleeper_; }

    // Registers of a vCPU on which `cpu` runs, in the kernel: on the stack of `task`.
    [[nodiscard]] RegisterSet vcpu(std::uint32_t cpu, std::uint64_t task) const;
    // In user mode, with what the user likes in gs_base.
    [[nodiscard]] RegisterSet vcpu_in_user(std::uint32_t cpu, PhysicalAddress cr3,
                                           std::uint64_t user_gs) const;

    template <class T>
    [[nodiscard]] T get(std::uint64_t address) const {
        T value{};
        std::memcpy(&value, guest_->bytes(VirtualAddress{address}, sizeof value).data(), sizeof value);
        return value;
    }
    template <class T, class Change>
    void edit(std::uint64_t address, Change&& change) {
        auto value = get<T>(address);
        change(value);
        guest_->put(VirtualAddress{address}, value);
    }

private:
    std::uint64_t new_task(const TaskOptions& options);
    void append(std::uint64_t head, std::uint64_t node);
    void add_to_pid_table(std::uint32_t tid, std::uint64_t task);
    void write_btf();
    void make_cpus(std::uint32_t cpus);

    GuestBuilder* guest_;
    std::vector<std::uint64_t> idle_, areas_;
    std::uint64_t offsets_ = 0, pid_namespace_ = 0, schedule_ = 0, sleeper_ = 0;
};

}  // namespace exo::test
