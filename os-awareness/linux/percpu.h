// Per-CPU variables, and which task each vCPU executes.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backends/api/registers.h"
#include "os-awareness/linux/kernel_image.h"
#include "os-awareness/linux/struct_layout.h"

namespace exo::os {

// One CPU of the guest, as its kernel numbers them.
struct Cpu {
    std::uint32_t number = 0;
    std::uint64_t offset = 0;  // added to the address of a per-CPU symbol; the kernel's GS base
    // task_struct addresses, 0 where not known. `current` is what get_current() gives; `curr` is the
    // scheduler's, which differs during a context switch.
    std::uint64_t current = 0;
    std::uint64_t curr = 0;
    std::uint64_t idle = 0;
    std::optional<PhysicalAddress> gdt{};
};

class PerCpu {
public:
    // Looks up the symbols. `btf` may be null. All must outlive this.
    PerCpu(KernelImage& image, const Btf* btf, const StructLayout& layout);

    // What is not there for the search for current tasks, one line each.
    [[nodiscard]] std::span<const std::string> missing() const { return missing_; }

    // Reads every CPU's variables. CPUs whose area is not set up (early boot) are left out.
    void refresh(std::vector<std::string>& problems);
    [[nodiscard]] std::span<const Cpu> cpus() const { return cpus_; }
    // One of them as it is now; nothing where its area is not what it was.
    [[nodiscard]] std::optional<Cpu> read_again(const Cpu& cpu) const;

    // As OsAwareness has them. Of CPUs that were there at the last refresh().
    [[nodiscard]] Result<std::uint64_t> offset_of(std::uint32_t cpu) const;
    [[nodiscard]] Result<VirtualAddress> variable(std::string_view name) const;
    [[nodiscard]] Result<VirtualAddress> variable(VirtualAddress address) const;

    // task->cpu if it says so of each idle task, else the other place where a kernel may have it.
    [[nodiscard]] Field task_cpu() const { return task_cpu_; }
    // Bytes of a kernel stack: THREAD_SIZE.
    [[nodiscard]] std::uint64_t stack_size() const;

private:
    [[nodiscard]] std::optional<std::uint64_t> symbol(std::string_view name) const;
    [[nodiscard]] std::optional<std::uint64_t> value(std::uint64_t address, std::uint32_t size = 8) const;
    [[nodiscard]] std::uint32_t count_cpus() const;
    [[nodiscard]] std::optional<Cpu> read_cpu(std::uint32_t number, std::uint64_t offset,
                                              std::vector<std::string>& problems) const;
    void infer_idle();
    void infer_task_cpu();
    void choose_task_cpu();
    void choose_stack_size();

    KernelImage* image_;
    const Btf* btf_;
    const StructLayout* layout_;
    std::optional<std::uint64_t> section_;  // where ".data..percpu" of BTF begins
    std::optional<std::uint64_t> runqueues_, current_task_, cpu_number_, gdt_page_, top_of_stack_;
    std::vector<std::string> missing_;
    std::vector<Cpu> cpus_;
    Field curr_, idle_;  // in struct rq
    Field task_cpu_;
    std::uint64_t stack_size_ = 0;
};

// What `current_on_vcpu` asks about tasks.
struct StackLookup {
    // The kernel stack of a task_struct: its lowest address, 0 if it has none or cannot be read.
    std::function<std::uint64_t(std::uint64_t task)> stack_of;
    // The task in whose kernel stack `rsp` lies, 0 if in none.
    std::function<std::uint64_t(std::uint64_t rsp)> owner_of;
    // Physical address of a task's page-table root, nothing for a kernel thread.
    std::function<std::optional<std::uint64_t>(std::uint64_t task)> root_of;
    std::uint64_t stack_size = 0;
};

struct VcpuTask {
    std::uint64_t task = 0;              // 0: could not be told
    std::optional<std::uint32_t> cpu{};  // as the guest numbers it
    std::string why_not{};               // one line, when it could not be told
};

// Those of `cpus` among which current_on_vcpu() would decide by GDT or GS base. Empty where it would go on to
// look at what the CPUs execute.
std::vector<const Cpu*> cpus_named_by(const RegisterSet& registers, std::span<const Cpu> cpus,
                                      AddressSpace& kernel);

// The task whose registers vCPU `index` holds, in any state of it: in user mode, in an interrupt, between
// swapgs and iret, in the middle of a context switch, before per-CPU areas are set up.
VcpuTask current_on_vcpu(const RegisterSet& registers, std::uint32_t index, std::span<const Cpu> cpus,
                         const StackLookup& lookup, AddressSpace& kernel);

}  // namespace exo::os
