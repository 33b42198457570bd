// Which task a vCPU executes: from its registers and the CPUs' variables.
#include <algorithm>
#include <array>
#include <utility>

#include "os-awareness/linux/constants.h"
#include "os-awareness/linux/percpu.h"

namespace exo::os {
namespace {

struct Evidence {
    const RegisterSet& registers;
    std::span<const Cpu> cpus;
    const StackLookup& lookup;
    AddressSpace& kernel;

    [[nodiscard]] bool user_mode() const { return (registers.get(x86::cs).value_or(0) & 3U) == 3; }

    [[nodiscard]] bool on_stack_of(std::uint64_t task) const {
        const auto rsp = registers.get(x86::rsp);
        const auto stack = rsp && task != 0 ? lookup.stack_of(task) : 0;
        return stack != 0 && *rsp > stack && *rsp - stack <= lookup.stack_size;
    }

    // Each CPU has its GDT, at its own page and through an alias of it in the CPU entry area: they agree in
    // the physical address. The user cannot change it, and it is the same in every mode.
    [[nodiscard]] const Cpu* by_gdt() const {
        const auto base = registers.get(x86::gdt_base);
        if (!base) return nullptr;
        const auto page = kernel.translate(VirtualAddress{*base});
        if (!page) return nullptr;
        const auto it = std::ranges::find_if(cpus, [&](const Cpu& c) { return c.gdt == page->physical; });
        return it != cpus.end() ? &*it : nullptr;
    }

    [[nodiscard]] const Cpu* with_offset(std::optional<std::uint64_t> base) const {
        if (!base) return nullptr;
        const auto it = std::ranges::find(cpus, *base, &Cpu::offset);
        return it != cpus.end() ? &*it : nullptr;
    }

    [[nodiscard]] std::pair<const Cpu*, const Cpu*> with_gs() const {
        const auto* direct = user_mode() ? nullptr : with_offset(registers.get(x86::gs_base));
        return {direct, with_offset(registers.get(x86::k_gs_base))};
    }

    // The kernel's GS base is in gs_base while it runs and in k_gs_base while the user does, but for the
    // instructions between an entry and its swapgs, and between swapgs and iret. There a user can have put
    // another CPU's base into his own (wrgsbase), so that the stack has to decide.
    [[nodiscard]] const Cpu* by_gs() const {
        const auto [direct, swapped] = with_gs();
        if (user_mode()) return swapped;
        if (direct == nullptr || swapped == nullptr || direct == swapped) {
            return direct != nullptr ? direct : swapped;
        }
        for (const auto* cpu : {direct, swapped}) {
            if (on_stack_of(cpu->current) || on_stack_of(cpu->curr)) return cpu;
        }
        return direct;
    }

    // Last resort in user mode: whose page tables are in use. Nothing if two CPUs run the same process, but
    // for the one that has the vCPU's own number.
    [[nodiscard]] const Cpu* by_root(std::uint32_t index) const {
        const auto cr3 = registers.get(x86::cr3);
        if (!cr3) return nullptr;
        const Cpu* found = nullptr;
        bool several = false;
        for (const auto& cpu : cpus) {
            const auto root = lookup.root_of(cpu.current != 0 ? cpu.current : cpu.curr);
            if (!root || ((*root ^ *cr3) & cr3_address & ~kpti_user_bit) != 0) continue;
            if (cpu.number == index) return &cpu;
            several = found != nullptr;
            found = &cpu;
        }
        return several ? nullptr : found;
    }
};

}  // namespace

std::vector<const Cpu*> cpus_named_by(const RegisterSet& registers, std::span<const Cpu> cpus,
                                      AddressSpace& kernel) {
    const StackLookup none;
    const Evidence evidence{registers, cpus, none, kernel};
    std::vector<const Cpu*> named;
    const auto has_gdt = [](const Cpu& c) { return c.gdt.has_value(); };
    if (registers.available(x86::gdt_base) && std::ranges::any_of(cpus, has_gdt)) {
        if (const auto* cpu = evidence.by_gdt()) named.push_back(cpu);
        return named;  // a GDT of none of them may be of one that is new
    }
    const auto [direct, swapped] = evidence.with_gs();
    if (direct != nullptr) named.push_back(direct);
    if (swapped != nullptr && swapped != direct) named.push_back(swapped);
    return named;
}

VcpuTask current_on_vcpu(const RegisterSet& registers, std::uint32_t index, std::span<const Cpu> cpus,
                         const StackLookup& lookup, AddressSpace& kernel) {
    const auto mode = x86::paging_mode(registers);
    if (mode && *mode != x86::PagingMode::levels4 && *mode != x86::PagingMode::levels5) {
        return {.why_not = "not in long mode"};
    }
    const Evidence evidence{registers, cpus, lookup, kernel};
    const auto* cpu = evidence.by_gdt();
    if (cpu == nullptr) cpu = evidence.by_gs();
    if (cpu == nullptr && evidence.user_mode()) cpu = evidence.by_root(index);
    if (cpu == nullptr) {
        // Very early, or a hypervisor that tells no GS base: what stack it is on.
        const auto rsp = registers.get(x86::rsp);
        const auto owner = rsp && !evidence.user_mode() ? lookup.owner_of(*rsp) : 0;
        if (owner != 0) return {.task = owner};
        return {.why_not = "neither its GDT nor its GS base is that of a CPU of this kernel"};
    }
    VcpuTask result{.cpu = cpu->number};
    // During a switch (__switch_to_asm) the stack changes first, current_task after; rq->curr was set
    // before both. The registers are those of the task on whose stack they are. On an interrupt or exception
    // stack, and in user mode, current_task holds.
    if (!evidence.user_mode()) {
        for (const auto task : {cpu->current, cpu->curr}) {
            if (evidence.on_stack_of(task)) {
                result.task = task;
                return result;
            }
        }
    }
    result.task = cpu->current != 0 ? cpu->current : cpu->curr;
    if (result.task == 0) result.why_not = "CPU " + std::to_string(cpu->number) + " has no current task yet";
    return result;
}

}  // namespace exo::os
