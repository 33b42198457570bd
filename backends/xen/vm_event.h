// Xen's vm_event interface (xen/include/public/vm_event.h) as its own header has it.
#pragma once

#include "backends/xen/headers.h"
// after what says that this is for tools
#include <xen/vm_event.h>

namespace exo::xen {

// A request of the hypervisor's, or the response to it: they have one form.
using VmEvent = vm_event_request_t;

// A vCPU's registers as the hypervisor saves them.
using HvmCpu = hvm_hw_cpu;

}  // namespace exo::xen
