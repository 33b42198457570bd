#include "backends/xen/debug_registers.h"

#include <algorithm>

namespace exo::xen {
namespace {

// LE and GE, which old processors wanted for exact data breakpoints.
constexpr std::uint64_t dr7_exact = 0x300;

std::uint64_t access_bits(BreakpointKind kind) {  // R/W
    return kind == BreakpointKind::hardware ? 0 : kind == BreakpointKind::write_watch ? 1 : 3;
}

std::uint64_t length_bits(std::uint32_t length) { return length == 8 ? 2 : length - 1; }  // LEN

std::uint32_t slot_length(BreakpointKind kind, std::uint32_t length) {
    return kind == BreakpointKind::hardware ? 1 : length;
}

StopEvent::Cause cause_of(BreakpointKind kind) {
    if (kind == BreakpointKind::hardware) return StopEvent::Cause::hardware_breakpoint;
    return kind == BreakpointKind::write_watch ? StopEvent::Cause::write_watch
                                               : StopEvent::Cause::access_watch;
}

}  // namespace

bool DebugRegisters::can_watch(BreakpointKind kind, VirtualAddress address, std::uint32_t length) {
    if (kind == BreakpointKind::hardware) return true;
    if (kind != BreakpointKind::write_watch && kind != BreakpointKind::access_watch) return false;
    const bool sized = length == 1 || length == 2 || length == 4 || length == 8;
    return sized && raw(address) % length == 0;
}

Result<void> DebugRegisters::insert(BreakpointKind kind, VirtualAddress address, std::uint32_t length) {
    if (!can_watch(kind, address, length))
        return fail(Errc::unsupported, "a debug register watches 1, 2, 4 or 8 aligned bytes");
    const auto free = std::ranges::find_if(slots_, [](const auto& slot) { return !slot; });
    if (free == slots_.end()) return fail(Errc::no_free_slot, "all four debug registers are in use");
    *free = Slot{kind, raw(address), slot_length(kind, length)};
    return {};
}

bool DebugRegisters::remove(BreakpointKind kind, VirtualAddress address, std::uint32_t length) {
    const Slot wanted{kind, raw(address), slot_length(kind, length)};
    const auto found = std::ranges::find_if(slots_, [&](const auto& slot) { return slot == wanted; });
    if (found == slots_.end()) return false;
    found->reset();
    return true;
}

bool DebugRegisters::empty() const {
    return std::ranges::none_of(slots_, [](const auto& slot) { return slot.has_value(); });
}

DebugRegisterValues DebugRegisters::values() const {
    DebugRegisterValues values;
    if (empty()) return values;
    values.control = dr7_exact;
    for (std::size_t i = 0; i < slots_.size(); ++i) {
        const auto& slot = slots_.at(i);
        if (!slot) continue;
        values.address.at(i) = slot->address;
        values.control |= std::uint64_t{2} << (2 * i);  // G: also across task switches
        values.control |= (access_bits(slot->kind) | length_bits(slot->length) << 2U) << (16 + 4 * i);
    }
    return values;
}

bool DebugRegisters::breaks_at(std::uint64_t address) const {
    return std::ranges::any_of(slots_, [&](const auto& slot) {
        return slot && slot->kind == BreakpointKind::hardware && slot->address == address;
    });
}

std::optional<StopEvent> DebugRegisters::event(VcpuId vcpu, std::uint64_t dr6) const {
    for (std::size_t i = 0; i < slots_.size(); ++i) {
        const auto& slot = slots_.at(i);
        if (slot && (dr6 >> i & 1U) != 0)
            return StopEvent{
                .cause = cause_of(slot->kind), .vcpu = vcpu, .address = VirtualAddress{slot->address}};
    }
    return std::nullopt;
}

}  // namespace exo::xen
