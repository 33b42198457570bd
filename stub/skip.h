// Getting a vCPU past an instruction that does nothing, with nothing run: every function of a kernel that
// ftrace can patch begins with one (CONFIG_DYNAMIC_FTRACE), and so does nearly every breakpoint.
#pragma once

#include <cstddef>

#include "stub/machine.h"

namespace exo::stub {

// Of the NOP that `code` begins with, in 64-bit mode (Intel SDM vol. 2B, NOP); 0 where it begins with another
// instruction. Not of ENDBR64, which ends what an indirect branch has begun (vol. 1, 18.3.1).
std::size_t length_of_nop(ConstBytes code);

// True: the vCPU stands behind the NOP at `pc`. False: there is none, and nothing was done.
Result<bool> skip_nop(Machine& machine, VcpuId vcpu, VirtualAddress pc);

}  // namespace exo::stub
