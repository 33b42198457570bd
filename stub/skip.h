// Getting a vCPU past an instruction that nothing is run of, or past a breakpoint on it. No instruction is
// left out of a guest that steps itself: its trap would be lost.
#pragma once

#include "stub/machine.h"

namespace exo::stub {

// How a vCPU that is about to be resumed gets past a breakpoint at `pc` with no other stopped for it.
struct WayPast {
    bool by_flag = false;  // of the processor: the breakpoint is in a debug register (Breakpoints::pass_by)
    // It is put behind a NOP of so many bytes (Target::move_to): every function of a kernel that ftrace can
    // patch begins with one (CONFIG_DYNAMIC_FTRACE), and so does nearly every breakpoint.
    std::size_t nop = 0;
    explicit operator bool() const { return by_flag || nop != 0; }
};
Result<WayPast> way_past(Machine& machine, VcpuId vcpu, VirtualAddress pc);
Result<void> take(const WayPast& way, Machine& machine, VcpuId vcpu, VirtualAddress pc);

// Puts it behind a HLT, PAUSE or MWAIT at `pc`, which is linear; false if another instruction is there, and
// then nothing was done. A processor may wake up at once from it, and nothing tells that from a long one
// (Intel SDM vol. 2). Not with interrupts disabled, where what is behind a HLT may never be meant to run.
Result<bool> skip_pause(Machine& machine, VcpuId vcpu, VirtualAddress pc);

}  // namespace exo::stub
