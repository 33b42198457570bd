// Registers between KVM's structures (Documentation/virt/kvm/api.rst) and the layout that debuggers see.
#pragma once

#include <linux/ioctl.h>
#include <linux/kvm.h>

#include <cstddef>
#include <cstdint>

#include "backends/api/registers.h"
#include "backends/arch/xsave_area.h"

namespace exo::kvm {

// Numbers of ioctls whose structures end in a flexible array: in C++ linux/kvm.h gives those other sizes than
// in C
// (__DECLARE_FLEX_ARRAY, linux/stddef.h), and the size is part of the number. Eight bytes is struct kvm_msrs
// without entries.
inline constexpr std::uint64_t ioctl_get_msrs = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x88, 8);
inline constexpr std::uint64_t ioctl_set_msrs = _IOC(_IOC_WRITE, KVMIO, 0x89, 8);
inline constexpr std::uint64_t ioctl_get_xsave = _IOC(_IOC_READ, KVMIO, 0xa4, 4096);
inline constexpr std::uint64_t ioctl_set_xsave = _IOC(_IOC_WRITE, KVMIO, 0xa5, 4096);
inline constexpr std::uint64_t ioctl_get_xsave2 = _IOC(_IOC_READ, KVMIO, 0xcf, 4096);

// Which of KVM's structures holds a register.
enum class Holder : std::uint8_t { regs, sregs, xsave, msr, none };
Holder holder_of(RegisterNumber number);

// arch/x86/include/asm/msr-index.h
inline constexpr std::uint32_t msr_lstar = 0xc0000082;  // where SYSCALL leads to in 64-bit mode
inline constexpr std::uint32_t msr_kernel_gs_base = 0xc0000102;

void fill_from_regs(RegisterSet& registers, const kvm_regs& regs);
void fill_from_sregs(RegisterSet& registers, const kvm_sregs& sregs);
// What KVM_GET_XSAVE (4096 bytes) or KVM_GET_XSAVE2 (more) gives.
using x86::fill_from_xsave;
using x86::least_xsave_size;
using x86::put_into_xsave;
using x86::XsaveArea;

// Puts register `number` of `values` where it is held. False for one that is not held there.
bool put_into_regs(kvm_regs& regs, const RegisterSet& values, RegisterNumber number);
bool put_into_sregs(kvm_sregs& sregs, const RegisterSet& values, RegisterNumber number);

}  // namespace exo::kvm
