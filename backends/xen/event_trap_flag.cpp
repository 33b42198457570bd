// Steps by EFLAGS.TF, where the processor has no monitor trap flag: of EventExecution.
//
// The guest must not come to have a flag of ours. It is pushed by PUSHF, and by an interrupt that comes
// before the instruction: a step that is cut short while its handler runs ends when that returns, in a #DB
// that the guest does not expect.
#include <algorithm>
#include <array>

#include "backends/arch/instructions.h"
#include "backends/arch/page_tables.h"
#include "backends/xen/event_execution.h"

namespace exo::xen {
namespace {

using namespace std::chrono_literals;

constexpr std::byte trap_flag_in_high_byte{0x01};
constexpr std::byte pushf_opcode{0x9c};
// Of instructions that the hypervisor executes in the guest's place: the trap is then not the processor's, of
// which there is an event, but the hypervisor's, and the guest's (__update_guest_eip(), svm.c).
bool is_executed_by_hypervisor(ConstBytes code) {
    const auto at = [&](std::size_t i) { return i < code.size() ? std::to_integer<unsigned>(code[i]) : 0; };
    std::size_t i = 0;
    const auto is_prefix = [](unsigned byte) {  // operand size, repeat, REX
        return byte == 0x66 || byte == 0xf2 || byte == 0xf3 || (byte & 0xf0U) == 0x40;
    };
    while (i < code.size() && is_prefix(at(i))) ++i;
    const auto byte = at(i);
    // HLT; INS, OUTS, IN, OUT
    if (byte == 0xf4 || (byte >= 0x6c && byte <= 0x6f) || (byte >= 0xe4 && byte <= 0xe7) ||
        (byte >= 0xec && byte <= 0xef))
        return true;
    if (byte != 0x0f) return false;
    switch (at(i + 1)) {
        case 0x01: {  // all but SWAPGS, RDTSCP, CLAC and STAC
            const auto more = at(i + 2);
            return more != 0xf8 && more != 0xf9 && more != 0xca && more != 0xcb;
        }
        case 0x06:  // CLTS
        case 0x08:  // INVD
        case 0x09:  // WBINVD
        case 0x20:  // MOV of control and debug registers
        case 0x21:
        case 0x22:
        case 0x23:
        case 0x30:  // WRMSR
        case 0x32:  // RDMSR
        case 0x33:  // RDPMC
        case 0xa2:  // CPUID
            return true;
        default: return false;
    }
}

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

Result<void> EventExecution::check_trap_flag(VcpuId id) {
    const auto rip = TRY(domain_.cpu(id)).rip;
    std::array<std::byte, x86::longest_instruction> code{};
    std::size_t length = 0;
    for (; length < code.size(); ++length) {
        const auto place = locate(id, VirtualAddress{rip + length});
        if (!place || !domain_.memory().read(*place, {&code.at(length), 1})) break;
    }
    if (!is_executed_by_hypervisor(ConstBytes{code}.first(length))) return {};
    return fail(
        Errc::unsupported,
        "Xen executes the instruction at " + hex(rip) +
            " for the guest, and on this processor the guest would see the end of that step; let it run");
}

Result<void> EventExecution::set_trap_flag(VcpuId id, bool on) {
    auto& vcpu = vcpus_.at(id);
    const bool was_stepping = vcpu.stepping;
    if (on) {
        CHECK_OK(check_trap_flag(id));
        vcpu.stepping = true;  // journalled before
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
