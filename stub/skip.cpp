#include "stub/skip.h"

#include <array>
#include <span>

#include "backends/arch/instructions.h"
#include "backends/arch/x86_64.h"

namespace exo::stub {
namespace {

// Of the instruction at `pc`, by `length_of`; 0 also where it cannot be read: who runs it learns why.
std::size_t length_at(Machine& machine, VcpuId vcpu, VirtualAddress pc,
                      std::size_t (*length_of)(ConstBytes)) {
    std::array<std::byte, x86::longest_instruction> code{};
    const auto space = machine.vcpu_space(vcpu);
    const std::size_t count = space ? (*space)->read_some(pc, code).value_or(0) : 0;
    return length_of(ConstBytes{code}.first(count));
}

}  // namespace

Result<bool> skip_nop(Machine& machine, VcpuId vcpu, VirtualAddress pc) {
    if (!x86::in_upper_half(raw(pc))) return false;
    const auto flags = (*TRY(machine.vcpu_registers(vcpu))).get(x86::eflags);
    if (!flags || (*flags & x86::eflags_tf) != 0) return false;
    const std::size_t length = length_at(machine, vcpu, pc, x86::nop_length);
    if (length == 0) return false;
    CHECK_OK(machine.move_to(vcpu, pc + length));
    return true;
}

Result<bool> skip_pause(Machine& machine, VcpuId vcpu, VirtualAddress pc) {
    RegisterSet registers = *TRY(machine.vcpu_registers(vcpu));
    const auto flags = registers.get(x86::eflags).value_or(0);
    if ((flags & x86::eflags_if) == 0 || (flags & x86::eflags_tf) != 0) return false;
    const std::size_t length = length_at(machine, vcpu, pc, x86::pause_length);
    if (length == 0) return false;
    const RegisterNumber number = x86::rip;
    registers.set(number, registers.get(number).value_or(0) + length);
    CHECK_OK(machine.write_vcpu_registers(vcpu, registers, std::span{&number, 1}));
    return true;
}

}  // namespace exo::stub
