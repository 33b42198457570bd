// Xen's vm_event interface (xen/include/public/vm_event.h) as its own header has it.
#pragma once

#ifndef __XEN_TOOLS__
#define __XEN_TOOLS__ 1  // without it the header is empty
#endif
#include <stddef.h>  // offsetof, for the ring's macros
#include <stdint.h>
#include <xen/xen.h>
// after xen.h
#include <xen/hvm/save.h>
#include <xen/vm_event.h>

namespace exo::xen {

// A request of the hypervisor's, or the response to it: they have one form.
using VmEvent = vm_event_request_t;

// A vCPU's registers as the hypervisor saves them.
using HvmCpu = hvm_hw_cpu;

}  // namespace exo::xen
