// The opcodes of agent expressions, with what each takes and leaves: gdb 13, gdbsupport/ax.def.
#pragma once

#include <array>
#include <cstdint>

#include "rsp/agent_expression.h"

namespace exo::rsp {

enum class AgentOp : std::uint8_t {
    add = 0x02,
    sub = 0x03,
    mul = 0x04,
    div_signed = 0x05,
    div_unsigned = 0x06,
    rem_signed = 0x07,
    rem_unsigned = 0x08,
    lsh = 0x09,
    rsh_signed = 0x0a,
    rsh_unsigned = 0x0b,
    trace = 0x0c,
    trace_quick = 0x0d,
    log_not = 0x0e,
    bit_and = 0x0f,
    bit_or = 0x10,
    bit_xor = 0x11,
    bit_not = 0x12,
    equal = 0x13,
    less_signed = 0x14,
    less_unsigned = 0x15,
    ext = 0x16,
    ref8 = 0x17,
    ref16 = 0x18,
    ref32 = 0x19,
    ref64 = 0x1a,
    if_goto = 0x20,
    go_to = 0x21,
    const8 = 0x22,
    const16 = 0x23,
    const32 = 0x24,
    const64 = 0x25,
    reg = 0x26,
    end = 0x27,
    dup = 0x28,
    pop = 0x29,
    zero_ext = 0x2a,
    swap = 0x2b,
    getv = 0x2c,
    setv = 0x2d,
    tracev = 0x2e,
    tracenz = 0x2f,
    trace16 = 0x30,
    pick = 0x32,
    rot = 0x33,
    printf = 0x34,
};

struct AgentOpInfo {
    AgentOp op{};
    std::uint8_t operand = 0;  // bytes, big-endian; printf's is told by itself
    std::uint8_t takes = 0;    // from the stack; printf takes two and its arguments, pick looks deeper
    std::uint8_t leaves = 0;
};

// clang-format off
inline constexpr auto agent_ops = std::to_array<AgentOpInfo>({
    {AgentOp::add, 0, 2, 1}, {AgentOp::sub, 0, 2, 1}, {AgentOp::mul, 0, 2, 1},
    {AgentOp::div_signed, 0, 2, 1}, {AgentOp::div_unsigned, 0, 2, 1},
    {AgentOp::rem_signed, 0, 2, 1}, {AgentOp::rem_unsigned, 0, 2, 1},
    {AgentOp::lsh, 0, 2, 1}, {AgentOp::rsh_signed, 0, 2, 1}, {AgentOp::rsh_unsigned, 0, 2, 1},
    {AgentOp::trace, 0, 2, 0}, {AgentOp::trace_quick, 1, 1, 1}, {AgentOp::trace16, 2, 1, 1},
    {AgentOp::tracenz, 0, 2, 0}, {AgentOp::tracev, 2, 0, 0},
    {AgentOp::log_not, 0, 1, 1}, {AgentOp::bit_not, 0, 1, 1},
    {AgentOp::bit_and, 0, 2, 1}, {AgentOp::bit_or, 0, 2, 1}, {AgentOp::bit_xor, 0, 2, 1},
    {AgentOp::equal, 0, 2, 1}, {AgentOp::less_signed, 0, 2, 1}, {AgentOp::less_unsigned, 0, 2, 1},
    {AgentOp::ext, 1, 1, 1}, {AgentOp::zero_ext, 1, 1, 1},
    {AgentOp::ref8, 0, 1, 1}, {AgentOp::ref16, 0, 1, 1}, {AgentOp::ref32, 0, 1, 1}, {AgentOp::ref64, 0, 1, 1},
    {AgentOp::if_goto, 2, 1, 0}, {AgentOp::go_to, 2, 0, 0}, {AgentOp::end, 0, 0, 0},
    {AgentOp::const8, 1, 0, 1}, {AgentOp::const16, 2, 0, 1}, {AgentOp::const32, 4, 0, 1},
    {AgentOp::const64, 8, 0, 1},
    {AgentOp::reg, 2, 0, 1},
    {AgentOp::dup, 0, 1, 2}, {AgentOp::pop, 0, 1, 0}, {AgentOp::swap, 0, 2, 2}, {AgentOp::rot, 0, 3, 3},
    {AgentOp::pick, 1, 0, 1},
    {AgentOp::getv, 2, 0, 1}, {AgentOp::setv, 2, 1, 1},
    {AgentOp::printf, 0, 2, 0},
});
// clang-format on

}  // namespace exo::rsp
