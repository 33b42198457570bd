// The four debug registers of an x86 processor as breakpoints and watchpoints (Intel SDM vol. 3B, 18.2).
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "backends/api/target.h"
#include "backends/xen/monitor_journal.h"

namespace exo::xen {

class DebugRegisters {
public:
    // Whether one register is enough for a range: 1, 2, 4 or 8 aligned bytes, and no reads alone.
    static bool can_watch(BreakpointKind kind, VirtualAddress address, std::uint32_t length);

    // unsupported for what can_watch() denies, no_free_slot.
    Result<void> insert(BreakpointKind kind, VirtualAddress address, std::uint32_t length);
    // False: there was none such.
    bool remove(BreakpointKind kind, VirtualAddress address, std::uint32_t length);
    void clear() { slots_ = {}; }

    [[nodiscard]] bool empty() const;
    [[nodiscard]] DebugRegisterValues values() const;
    // Whether an instruction breakpoint is there.
    [[nodiscard]] bool breaks_at(std::uint64_t address) const;
    // What a #DB was for, of which DR6 is that; nothing if it was for none of these.
    [[nodiscard]] std::optional<StopEvent> event(VcpuId vcpu, std::uint64_t dr6) const;

private:
    struct Slot {
        BreakpointKind kind{};
        std::uint64_t address = 0;
        std::uint32_t length = 0;
        friend bool operator==(const Slot&, const Slot&) = default;
    };
    std::array<std::optional<Slot>, 4> slots_;
};

}  // namespace exo::xen
