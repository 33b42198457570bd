// Getting a vCPU past an instruction with nothing run. Each gives true if the vCPU stands behind it, false if
// another instruction is there, and then nothing was done. Neither is tried on a guest that steps itself: its
// trap would be lost.
#pragma once

#include "stub/machine.h"

namespace exo::stub {

// A NOP of the kernel's at `pc`, of a vCPU that is about to be resumed (Target::move_to): every function of a
// kernel that ftrace can patch begins with one (CONFIG_DYNAMIC_FTRACE), and so does nearly every breakpoint.
Result<bool> skip_nop(Machine& machine, VcpuId vcpu, VirtualAddress pc);
// Of the NOP that it would be put behind, in bytes; 0 where it would not.
Result<std::size_t> nop_to_skip(Machine& machine, VcpuId vcpu, VirtualAddress pc);

// A HLT, PAUSE or MWAIT at `pc`, which is linear: a processor may wake up at once from it, and nothing tells
// that from a long one (Intel SDM vol. 2). Not with interrupts disabled, where what is behind a HLT may never
// be meant to run.
Result<bool> skip_pause(Machine& machine, VcpuId vcpu, VirtualAddress pc);

}  // namespace exo::stub
