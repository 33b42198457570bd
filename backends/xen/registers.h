// Registers between Xen's structures and the layout that debuggers see.
#pragma once

#include <cstdint>
#include <optional>

#include "backends/api/registers.h"
#include "backends/arch/xsave_area.h"
#include "backends/xen/headers.h"

namespace exo::xen {

// What xc_vcpu_setcontext() sets in any guest without a change of anything else: general registers, rip,
// flags.
bool is_general(RegisterNumber number);
bool put_into_user_regs(vcpu_guest_context_t& context, const RegisterSet& values, RegisterNumber number);

// An HVM or PVH guest's vCPU: the record CPU of its context has all but the FPU's and cr8.
void fill_from_hvm(RegisterSet& registers, const hvm_hw_cpu& cpu);
bool put_into_hvm(hvm_hw_cpu& cpu, const RegisterSet& values, RegisterNumber number);
// Of one that nobody has started yet, which Xen has no record of: as after INIT (Intel SDM vol. 3A, table
// 10-1).
void fill_as_after_init(RegisterSet& registers);
std::optional<std::uint64_t> msr_of(const hvm_hw_cpu& cpu, std::uint32_t number);

// A PV guest's vCPU. What it is made of is in ring 3, kernel and user alike; cs is told with the ring that
// the guest means, as Xen itself tells its kernel at an entry (x86_64/entry.S, create_bounce_frame). CR3
// stays as it is in Xen: a number of the machine's.
void fill_from_pv(RegisterSet& registers, const vcpu_guest_context_t& context);
bool put_into_pv(vcpu_guest_context_t& context, const RegisterSet& values, RegisterNumber number);

// The 512 bytes of FXSAVE that both structures begin with, as an XSAVE area without more; initial values
// where the guest has not used its FPU yet.
x86::XsaveArea as_xsave_area(const void* fxsave, bool used);

}  // namespace exo::xen
