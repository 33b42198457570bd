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

constexpr std::uint64_t of_local_table = 1U << 2U;  // a selector's TI (Intel SDM vol. 3A, 3.4.2)

// Whether a NOP is as long as in 64-bit mode. It is in 32-bit mode, not in 16-bit mode, whose segments no
// 64-bit system keeps in the global table.
bool decodes_alike(const RegisterSet& registers, VirtualAddress pc) {
    if (x86::in_upper_half(raw(pc))) return true;
    const bool long_mode = (registers.get(x86::efer).value_or(0) & x86::efer_lma) != 0;
    const bool local = (registers.get(x86::cs).value_or(of_local_table) & of_local_table) != 0;
    return long_mode && !local && registers.get(x86::rip) == raw(pc);
}

}  // namespace

Result<std::size_t> nop_to_skip(Machine& machine, VcpuId vcpu, VirtualAddress pc) {
    const RegisterSet& registers = *TRY(machine.vcpu_registers(vcpu));
    if (!decodes_alike(registers, pc)) return std::size_t{0};
    const auto flags = registers.get(x86::eflags);
    if (!flags || (*flags & x86::eflags_tf) != 0) return std::size_t{0};
    return length_at(machine, vcpu, pc, x86::nop_length);
}

Result<bool> skip_nop(Machine& machine, VcpuId vcpu, VirtualAddress pc) {
    const std::size_t length = TRY(nop_to_skip(machine, vcpu, pc));
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
