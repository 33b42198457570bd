// The moment at which what loads an operating system gives the machine to it. For who wants to be there when
// it begins: until then nothing tells where a kernel whose place is random will be.
#pragma once

#include <optional>

#include "backends/api/memory.h"
#include "backends/api/registers.h"

namespace exo::os {

// The instruction by which the loader that this vCPU executes will jump into the system it has loaded;
// nothing where it executes no such loader. Reads at most 1 MiB around its rip. The loader may move on until
// it is there: look again.
std::optional<VirtualAddress> find_handover(PhysicalMemory& memory, const RegisterSet& vcpu);

// Whether this vCPU executes a system that was loaded, not its loader or firmware.
bool executes_kernel(const RegisterSet& vcpu);

}  // namespace exo::os
