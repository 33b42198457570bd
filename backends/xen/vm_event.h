// Xen's vm_event interface (xen/include/public/vm_event.h) as its own header has it.
#pragma once

#include <cstdint>

#include "backends/xen/headers.h"
// after what says that this is for tools
#include <xen/vm_event.h>

namespace exo::xen {

// A request of the hypervisor's, or the response to it: they have one form.
using VmEvent = vm_event_request_t;

// A vCPU's registers as the hypervisor saves them.
using HvmCpu = hvm_hw_cpu;

// Of exceptions (Intel SDM vol. 3A, table 6-1).
inline constexpr std::uint8_t debug_vector = 1, breakpoint_vector = 3;

inline constexpr std::uint64_t trap_flag = 1U << 8U;  // EFLAGS.TF

}  // namespace exo::xen
