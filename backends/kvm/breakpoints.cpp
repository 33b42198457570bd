// KVM_SET_GUEST_DEBUG: breakpoints, watchpoints and steps (Documentation/virt/kvm/api.rst 4.87;
// arch/x86/kvm/x86.c kvm_arch_vcpu_ioctl_set_guest_debug).
#include <algorithm>
#include <array>

#include "backends/arch/page_tables.h"
#include "backends/arch/x86_64.h"
#include "backends/kvm/execution.h"
#include "backends/kvm/registers.h"

namespace exo::kvm {
namespace {

constexpr std::uint32_t debug_exception = 1;       // #DB
constexpr std::uint32_t breakpoint_exception = 3;  // #BP
constexpr std::byte pushf_opcode{0x9c}, operand_size_prefix{0x66};
constexpr std::uint64_t page_size = 4096;
constexpr std::array system_call_code{std::byte{0x0f}, std::byte{0x05}};
constexpr std::byte trap_flag_in_high_byte{0x01};  // EFLAGS.TF is bit 8
constexpr std::uint64_t dr6_single_step = 1U << 14U;
constexpr std::uint64_t dr7_exact =
    0x300;  // LE and GE, which old processors wanted for exact data breakpoints
// Linux' page-table isolation: the kernel's table is the page before the user's (arch/x86/mm/pti.c).
constexpr std::uint64_t pti_user_bit = 0x1000;

// DR7's R/W bits (Intel SDM vol. 3B, 18.2.4).
std::uint64_t access_bits(BreakpointKind kind) {
    return kind == BreakpointKind::hardware ? 0 : kind == BreakpointKind::write_watch ? 1 : 3;
}

// DR7's LEN bits.
std::uint64_t length_bits(std::uint32_t length) { return length == 8 ? 2 : length - 1; }

}  // namespace

bool KvmExecution::supports(BreakpointKind kind) const {
    return kind != BreakpointKind::read_watch;  // the debug registers know no such thing
}

bool KvmExecution::uses_debug_registers() const {
    return std::ranges::any_of(hardware_, [](const auto& slot) { return slot.has_value(); });
}

kvm_guest_debug KvmExecution::debug_state(bool step, std::optional<std::uint64_t> end_of_step) const {
    kvm_guest_debug debug{};
    if (!software_.empty()) debug.control |= KVM_GUESTDBG_USE_SW_BP;
    auto slots = hardware_;
    const auto empty = std::ranges::find_if(slots, [](const auto& slot) { return !slot; });
    if (end_of_step && empty != slots.end())
        *empty = {.kind = BreakpointKind::hardware, .address = *end_of_step, .length = 1};
    const auto used = [](const auto& slot) { return slot.has_value(); };
    if (std::ranges::any_of(slots, used)) {
        debug.control |= KVM_GUESTDBG_USE_HW_BP;
        std::uint64_t dr7 = dr7_exact;
        for (std::size_t i = 0; i < slots.size(); ++i) {
            const auto& slot = slots.at(i);
            if (!slot) continue;
            debug.arch.debugreg[i] = slot->address;
            dr7 |= std::uint64_t{2} << (2 * i);  // G: also across task switches
            dr7 |= (access_bits(slot->kind) | length_bits(slot->length) << 2U) << (16 + 4 * i);
        }
        debug.arch.debugreg[7] = dr7;
    }
    if (step) {
        debug.control |= KVM_GUESTDBG_SINGLESTEP;
        debug.control |= static_cast<std::uint32_t>(debug_flags_.value_or(0)) & KVM_GUESTDBG_BLOCKIRQ;
    }
    if (debug.control != 0) debug.control |= KVM_GUESTDBG_ENABLE;
    return debug;
}

// SYSCALL clears the trap flag (as MSR SFMASK says), so that a step of it would end where the system call has
// returned to. It ends at the kernel's entry where a debug register is free for that.
Result<kvm_guest_debug> KvmExecution::debug_state_of_step(VcpuId id) {
    const auto area = TRY(vcpus_.at(id)->run_area());
    const auto& cs = area.s.regs.sregs.cs;
    if ((cs.selector & 3U) != 3 || cs.l == 0 || !is_system_call(id, area)) return debug_state(true);
    const auto entry = TRY(vcpus_.at(id)->msr(msr_lstar));
    return debug_state(true, entry.value_or(0) != 0 ? entry : std::nullopt);
}

// What cannot be read is none: the step will tell.
bool KvmExecution::is_system_call(VcpuId id, const kvm_run& area) {
    std::uint64_t address = area.s.regs.regs.rip;
    for (const auto wanted : system_call_code) {
        const std::uint64_t page = address & ~(page_size - 1);
        if (code_page_.root != area.s.regs.sregs.cr3 || code_page_.page != page) {
            const auto place = locate(id, VirtualAddress{page});
            if (!place) return false;
            code_page_ = {area.s.regs.sregs.cr3, page, *place};
        }
        std::byte byte{};
        if (!memory_.read(code_page_.place + (address - page), {&byte, 1}) || byte != wanted) return false;
        ++address;
    }
    return true;
}

Result<PhysicalAddress> KvmExecution::locate(VcpuId id, VirtualAddress address, std::uint64_t clear_in_cr3) {
    const auto area = TRY(vcpus_.at(id)->run_area());
    RegisterSet registers{x86::layout()};
    fill_from_sregs(registers, area.s.regs.sregs);
    const auto mode = x86::paging_mode(registers);
    if (!mode) return fail(Errc::bad_data, "the vCPU's paging mode is none that exists");
    x86::PageTables tables{memory_, PhysicalAddress{area.s.regs.sregs.cr3 & ~clear_in_cr3}, *mode};
    return TRY(tables.translate(address)).physical;
}

// Through the tables of whichever vCPU maps it; kernel text is not in the tables that user mode has under
// page-table isolation.
Result<PhysicalAddress> KvmExecution::locate(VirtualAddress address) {
    for (const std::uint64_t clear : {std::uint64_t{0}, pti_user_bit})
        for (VcpuId id = 0; id < vcpus_.size(); ++id)
            if (auto found = locate(id, address, clear)) return found;
    return fail(Errc::bad_address, "no vCPU has " + hex(address) + " mapped");
}

// KVM steps by the guest's trap flag. PUSHF pushes it, and the guest would find it, and set it again by POPF:
// it is taken out of what was pushed. A guest that steps itself meanwhile is not thought of: KVM does not
// tell its flag from ours (kvm_get_rflags(), arch/x86/kvm/x86.c).
Result<void> KvmExecution::hide_trap_flag(VcpuId id, const kvm_regs& before) {
    const auto& after = vcpus_.at(id)->last_registers();
    const auto pushed = before.rsp - after.rsp;
    const auto length = after.rip - before.rip;
    if (pushed != 8 && pushed != 4 && pushed != 2) return {};
    if (length != 1 && length != 2) return {};  // with its operand-size prefix
    std::array<std::byte, 2> code{};
    const auto text = locate(id, VirtualAddress{before.rip});
    if (!text) return {};
    CHECK_OK(memory_.read(*text, std::span{code}.first(length)));
    if (code.at(length - 1) != pushf_opcode || (length == 2 && code[0] != operand_size_prefix)) return {};
    const auto flags = TRY(locate(id, VirtualAddress{after.rsp + 1}));  // bits 8 to 15
    std::byte high{};
    CHECK_OK(memory_.read(flags, {&high, 1}));
    return write_byte(flags, high & ~trap_flag_in_high_byte);
}

Result<void> KvmExecution::write_byte(PhysicalAddress place, std::byte value) {
    return memory_.write(place, {&value, 1});
}

Result<void> KvmExecution::insert_software(VirtualAddress address) {
    const auto place = TRY(locate(address));
    std::byte original{};
    CHECK_OK(memory_.read(place, {&original, 1}));
    const auto host = memory_.host_address(place);
    if (!host) return fail(Errc::bad_address, hex(address) + " is not in RAM");
    journal_.patches.push_back({*host, std::to_integer<std::uint8_t>(original)});
    CHECK_OK(write_journal(journal_));
    CHECK_OK(write_byte(place, breakpoint_byte));
    software_[raw(address)] = {place, original};
    return {};
}

Result<void> KvmExecution::insert_hardware(const HardwareSlot& slot) {
    const bool sized = slot.length == 1 || slot.length == 2 || slot.length == 4 || slot.length == 8;
    if (!sized || slot.address % slot.length != 0)
        return fail(Errc::unsupported, "a debug register watches 1, 2, 4 or 8 aligned bytes");
    const auto empty = std::ranges::find_if(hardware_, [](const auto& other) { return !other; });
    if (empty == hardware_.end()) return fail(Errc::no_free_slot, "all four debug registers are in use");
    *empty = slot;
    return {};
}

Result<void> KvmExecution::insert(BreakpointKind kind, VirtualAddress address, std::uint32_t length) {
    if (kind == BreakpointKind::software) return insert_software(address);
    return insert_hardware({kind, raw(address), kind == BreakpointKind::hardware ? 1 : length});
}

Result<void> KvmExecution::remove(BreakpointKind kind, VirtualAddress address, std::uint32_t length) {
    if (kind != BreakpointKind::software) {
        for (auto& slot : hardware_)
            if (slot && slot->kind == kind && slot->address == raw(address) &&
                (kind == BreakpointKind::hardware || slot->length == length))
                slot.reset();
        return {};
    }
    const auto found = software_.find(raw(address));
    if (found == software_.end()) return {};
    const auto patch = found->second;
    software_.erase(found);
    std::byte now{};
    CHECK_OK(memory_.read(patch.place, {&now, 1}));
    // What the guest has written there since is the guest's.
    if (now == breakpoint_byte) CHECK_OK(write_byte(patch.place, patch.original));
    const auto host = memory_.host_address(patch.place);
    std::erase_if(journal_.patches, [&](const JournalPatch& row) { return host && row.host == *host; });
    return write_journal(journal_);
}

Result<void> KvmExecution::remove_all() {
    hardware_ = {};
    Result<void> result;
    while (!software_.empty()) {
        auto removed = remove(BreakpointKind::software, VirtualAddress{software_.begin()->first}, 1);
        if (result && !removed) result = std::move(removed);
    }
    return result;
}

std::optional<StopEvent> KvmExecution::hardware_event(VcpuId id, const kvm_debug_exit_arch& debug) const {
    for (std::size_t i = 0; i < hardware_.size(); ++i) {
        const auto& slot = hardware_.at(i);
        if (!slot || (debug.dr6 >> i & 1U) == 0) continue;
        StopEvent event{.vcpu = id, .address = VirtualAddress{slot->address}};
        event.cause = slot->kind == BreakpointKind::hardware      ? StopEvent::Cause::hardware_breakpoint
                      : slot->kind == BreakpointKind::write_watch ? StopEvent::Cause::write_watch
                                                                  : StopEvent::Cause::access_watch;
        return event;
    }
    return std::nullopt;
}

// Nothing for what is the guest's own: it has been given it, and goes on.
Result<std::optional<StopEvent>> KvmExecution::translate_exit(VcpuId id, const kvm_debug_exit_arch& debug) {
    auto& vcpu = *vcpus_.at(id);
    const auto action = id < actions_.size() ? actions_[id] : VcpuAction::run;
    if (debug.exception == breakpoint_exception && software_.contains(debug.pc))
        return StopEvent{
            .cause = StopEvent::Cause::breakpoint, .vcpu = id, .address = VirtualAddress{debug.pc}};
    const auto before = before_step_.find(id);
    const bool stepped = before != before_step_.end();
    if (stepped) {
        CHECK_OK(hide_trap_flag(id, before->second));
        before_step_.erase(before);
    }
    if (debug.exception == debug_exception) {
        if (auto event = hardware_event(id, debug)) return event;
        if (stepped || (debug.dr6 & dr6_single_step) != 0)
            return StopEvent{
                .cause = StopEvent::Cause::step, .vcpu = id, .address = VirtualAddress{debug.pc}};
    }
    auto inject = debug_state(action == VcpuAction::step);
    inject.control |=
        KVM_GUESTDBG_ENABLE |
        (debug.exception == breakpoint_exception ? KVM_GUESTDBG_INJECT_BP : KVM_GUESTDBG_INJECT_DB);
    CHECK_OK(vcpu.set_guest_debug(inject));
    vcpu.forget_guest_debug();  // the next one sets it again, without the injection
    CHECK_OK(action == VcpuAction::step ? vcpu.run_from_board(Vcpu::Posted::step) : vcpu.run());
    return std::optional<StopEvent>{};
}

}  // namespace exo::kvm
