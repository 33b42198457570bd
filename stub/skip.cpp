#include "stub/skip.h"

#include <array>

#include "backends/arch/x86_64.h"

namespace exo::stub {
namespace {

constexpr std::size_t longest_instruction = 15;
constexpr std::uint64_t trap_flag = 1U << 8U;
// The upper half of the address space is reached in 64-bit mode only.
constexpr std::uint64_t upper_half = std::uint64_t{1} << 63U;

std::uint8_t at(ConstBytes code, std::size_t index) {
    return index < code.size() ? std::to_integer<std::uint8_t>(code[index]) : 0;
}

// ModRM, SIB and displacement, in bytes (SDM vol. 2A, tables 2-2 and 2-3).
std::size_t length_of_operand(ConstBytes code, std::size_t start) {
    const unsigned modrm = at(code, start);
    const unsigned mode = modrm >> 6U;
    const unsigned rm = modrm & 7U;
    if (mode == 3) return 1;
    const bool has_sib = rm == 4;
    const bool bare = mode == 0 && (rm == 5 || (has_sib && (at(code, start + 1) & 7U) == 5));
    const std::size_t displacement = mode == 1 ? 1 : mode == 2 || bare ? 4 : 0;
    return 1 + (has_sib ? 1 : 0) + displacement;
}

}  // namespace

std::size_t length_of_nop(ConstBytes code) {
    std::size_t length = 0;
    while (at(code, length) == 0x66 || at(code, length) == 0x2e) ++length;
    if (at(code, length) == 0x90) {
        ++length;
    } else if (at(code, length) == 0x0f && at(code, length + 1) == 0x1f &&
               (at(code, length + 2) & 0x38U) == 0) {
        length += 2 + length_of_operand(code, length + 2);
    } else {
        return 0;
    }
    return length <= code.size() && length <= longest_instruction ? length : 0;
}

Result<bool> skip_nop(Machine& machine, VcpuId vcpu, VirtualAddress pc) {
    if ((raw(pc) & upper_half) == 0) return false;
    const auto flags = (*TRY(machine.vcpu_registers(vcpu))).get(x86::eflags);
    if (!flags || (*flags & trap_flag) != 0) return false;  // the guest's own step would be lost
    std::array<std::byte, longest_instruction> code{};
    const auto space = machine.vcpu_space(vcpu);
    const std::size_t count = space ? (*space)->read_some(pc, code).value_or(0) : 0;
    const std::size_t length = length_of_nop(ConstBytes{code}.first(count));
    if (length == 0) return false;
    CHECK_OK(machine.move_to(vcpu, pc + length));
    return true;
}

}  // namespace exo::stub
