#include "os-awareness/dwarf/entry_code.h"

#include <algorithm>
#include <initializer_list>

namespace exo::os::dwarf {
namespace {

// Instructions at the beginning of functions that change none of the registers of arguments (Intel SDM,
// volume 2).
struct HarmlessInstruction {
    std::array<std::uint8_t, 5> opcode;
    std::uint8_t opcode_bytes;
    std::uint8_t bytes;
};
constexpr auto harmless = std::to_array<HarmlessInstruction>({
    {{0xf3, 0x0f, 0x1e, 0xfa}, 4, 4},        // endbr64
    {{0x0f, 0x1f, 0x44, 0x00, 0x00}, 5, 5},  // the nop of ftrace, a call of __fentry__ before
    {{0x66, 0x90}, 2, 2},                    // nop
    {{0x55}, 1, 1},                          // push %rbp
    {{0x53}, 1, 1},                          // push %rbx
    {{0x41, 0x54}, 2, 2},                    // push %r12
    {{0x41, 0x55}, 2, 2},                    // push %r13
    {{0x41, 0x56}, 2, 2},                    // push %r14
    {{0x41, 0x57}, 2, 2},                    // push %r15
    {{0x48, 0x89, 0xe5}, 3, 3},              // mov %rsp,%rbp
    {{0x48, 0x83, 0xec}, 3, 4},              // sub $imm8,%rsp
    {{0x48, 0x81, 0xec}, 3, 7},              // sub $imm32,%rsp
});

// rdi, rsi, rdx, rcx, r8, r9 (System V ABI, figure 3.36)
constexpr auto integer_arguments = std::to_array<std::uint8_t>({5, 4, 1, 2, 8, 9});

bool starts_with(ConstBytes code, const HarmlessInstruction& row) {
    return code.size() >= row.bytes &&
           std::ranges::equal(code.first(row.opcode_bytes), std::span{row.opcode}.first(row.opcode_bytes), {},
                              [](std::byte b) { return static_cast<std::uint8_t>(b); });
}

}  // namespace

std::uint32_t entry_bytes(ConstBytes code) {
    std::size_t at = 0;
    while (at < code.size()) {
        const auto* row = std::ranges::find_if(
            harmless, [&](const auto& candidate) { return starts_with(code.subspan(at), candidate); });
        if (row == harmless.end()) break;
        at += row->bytes;
    }
    return static_cast<std::uint32_t>(at + 1);
}

std::vector<ArgumentRegisters> argument_registers(const Btf& btf, const BtfType& prototype) {
    std::vector<ArgumentRegisters> arguments;
    std::size_t used = 0;
    for (std::uint32_t i = 0; i < prototype.count; ++i) {
        const auto size = btf.size_of(btf.parameter(prototype, i).type);
        if (!size) break;
        // More than 16 bytes are passed in memory, and so is what does not fit into what is left.
        const auto wanted = static_cast<std::size_t>((std::min<std::uint64_t>(*size, 24) + 7) / 8);
        ArgumentRegisters registers;
        if (wanted <= 2 && used + wanted <= integer_arguments.size()) {
            registers.count = static_cast<std::uint8_t>(wanted);
            for (std::size_t part = 0; part < wanted; ++part) {
                registers.number.at(part) = integer_arguments.at(used++);
            }
        }
        arguments.push_back(registers);
    }
    return arguments;
}

}  // namespace exo::os::dwarf
