// Steps by EFLAGS.TF, where the processor has no monitor trap flag: of EventExecution.
//
// The guest must not come to have a flag of ours. It is pushed by PUSHF, and by an interrupt that comes
// before the instruction: a step that is cut short while its handler runs ends when that returns, in a #DB
// that the guest does not expect.
#include <algorithm>

#include "backends/arch/page_tables.h"
#include "backends/xen/event_execution.h"

namespace exo::xen {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t trap_flag = 1U << 8U;
constexpr std::byte trap_flag_in_high_byte{0x01};
constexpr std::byte pushf_opcode{0x9c};
// How long a guest that is given back is waited for until its handlers have returned.
constexpr auto collect_limit = 1s;

}  // namespace

bool EventExecution::owes_traps() const { return std::ranges::any_of(vcpus_, &Vcpu::owes_trap); }

Result<void> EventExecution::journal_trap_flags() {
    journal_.trap_flags.clear();
    for (VcpuId id = 0; id < vcpus_.size(); ++id)
        if (vcpus_[id].stepping || vcpus_[id].owes_trap) journal_.trap_flags.push_back(id);
    return save();
}

Result<void> EventExecution::set_trap_flag(VcpuId id, bool on) {
    auto& vcpu = vcpus_.at(id);
    const bool was_stepping = vcpu.stepping;
    if (on) {  // journalled before
        vcpu.stepping = true;
        CHECK_OK(journal_trap_flags());
    }
    bool there = false;
    CHECK_OK(domain_.change_cpu(id, [&](HvmCpu& cpu) {
        there = (cpu.rflags & trap_flag) != 0;
        cpu.rflags = on ? cpu.rflags | trap_flag : cpu.rflags & ~trap_flag;
        vcpu.step_rip = cpu.rip;
        vcpu.step_rsp = cpu.rsp;
    }));
    if (on) return {};
    // Neither has the step ended nor is the flag where it was put: an interrupt has saved it.
    vcpu.owes_trap = !vcpu.event && (was_stepping ? !there : vcpu.owes_trap);
    vcpu.stepping = false;
    return journal_trap_flags();
}

// PUSHF in 64-bit mode: 8 bytes, of which the second has the flag.
Result<void> EventExecution::hide_trap_flag(VcpuId id, const VmEvent& event) {
    const auto& vcpu = vcpus_.at(id);
    const auto& registers = event.data.regs.x86;
    if (registers.rip != vcpu.step_rip + 1 || registers.rsp != vcpu.step_rsp - sizeof(std::uint64_t))
        return {};
    const auto text = locate(id, VirtualAddress{vcpu.step_rip});
    std::byte code{};
    if (!text || !domain_.memory().read(*text, {&code, 1}) || code != pushf_opcode) return {};
    const auto flags = TRY(locate(id, VirtualAddress{registers.rsp + 1}));
    std::byte high{};
    CHECK_OK(domain_.memory().read(flags, {&high, 1}));
    return write_byte(flags, high & ~trap_flag_in_high_byte);
}

// Before the guest is given back: handlers that were interrupted return soon.
Result<void> EventExecution::collect_traps() {
    if (!owes_traps()) return {};
    CHECK_OK(deliver(EventKind::debug_exception, true));
    actions_.assign(vcpus_.size(), VcpuAction::run);
    const auto deadline = Clock::now() + collect_limit;
    while (owes_traps() && Clock::now() < deadline) {
        for (VcpuId id = 0; id < vcpus_.size(); ++id) {
            vcpus_[id].seen = vcpus_[id].seen || vcpus_[id].debug;
            CHECK_OK(start_one(id));
        }
        CHECK_OK(unpause());
        static_cast<void>(TRY(domain_.wait(-1, 10ms)));
        CHECK_OK(drain());
    }
    return {};
}

}  // namespace exo::xen
