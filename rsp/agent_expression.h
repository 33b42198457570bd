// Agent expressions: the bytecode in which gdb sends conditions, commands and what a tracepoint collects
// (GDB manual, appendix "The GDB Agent Expression Mechanism"). Opcodes are those of gdb 13's
// gdbsupport/ax.def, what they do is what gdbserver/ax.cc does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "rsp/agent_format.h"

namespace exo::rsp {

enum class AgentOp : std::uint8_t;

// What is wrong with an expression, or went wrong in it.
struct AgentError {
    enum class Fault : std::uint8_t {
        // found by parse()
        empty,
        too_long,
        bad_opcode,  // `value`: which; one that does not exist, or that gdb never emits (floating point)
        cut_off,     // an operand is missing
        bad_jump,    // `value`: to where no instruction begins
        bad_format,  // of a printf, or arguments that do not fit it
        // found by evaluate()
        no_end,
        stack_underflow,
        stack_overflow,
        too_many_steps,
        too_much_output,
        division_by_zero,
        no_register,  // `value`: its number
        no_memory,    // `value`: the address
        no_variable,  // `value`: the number of the trace state variable
        not_collecting,
        buffer_full,
    };
    Fault fault = Fault::empty;
    std::uint32_t offset = 0;  // of the instruction
    std::uint64_t value = 0;
};

// "cannot read memory at 0x10 (offset 3 of the agent expression)"
std::string to_string(const AgentError& error);

// An expression that can be evaluated: every instruction is known and whole, every jump goes to one.
class AgentExpression {
public:
    static constexpr std::size_t most_bytes = 0xffff;  // offsets in it have 16 bits

    struct Instruction {
        AgentOp op{};
        std::uint32_t offset = 0;
        // The operand; of a jump the index of the instruction it goes to; of printf that of its format.
        std::uint64_t operand = 0;
    };

    // Nothing, and why in `error`.
    static std::optional<AgentExpression> parse(std::span<const std::byte> bytes, AgentError& error);

    [[nodiscard]] std::span<const Instruction> instructions() const { return instructions_; }
    [[nodiscard]] const AgentFormat& format(std::size_t index) const { return formats_.at(index); }

private:
    class Parser;
    std::vector<Instruction> instructions_;
    std::vector<AgentFormat> formats_;
};

// What an expression may see and do. What it cannot has the default here, and ends the evaluation.
class AgentContext {
public:
    virtual ~AgentContext() = default;
    // By gdb's remote register number: `regnum` of the target description (gdb/ax-general.c, ax_reg()).
    virtual std::optional<std::uint64_t> register_value(std::uint64_t number) = 0;
    // How many bytes could be read.
    virtual std::size_t read_memory(std::uint64_t address, std::span<std::byte> out) = 0;
    virtual std::optional<std::uint64_t> variable(std::uint64_t /*number*/) { return std::nullopt; }
    virtual bool set_variable(std::uint64_t /*number*/, std::uint64_t /*value*/) { return false; }
    virtual void print(std::string_view /*text*/) {}
    // Of tracepoints. Nothing: it is done.
    using Refusal = std::optional<AgentError::Fault>;
    virtual Refusal collect_memory(std::uint64_t /*address*/, std::uint64_t /*length*/) {
        return AgentError::Fault::not_collecting;
    }
    virtual Refusal collect_variable(std::uint64_t /*number*/) { return AgentError::Fault::not_collecting; }
};

struct AgentResult {
    std::optional<AgentError> error;
    std::uint64_t value = 0;  // the top of the stack at `end`, 0 where that is empty
};

// Ends, whatever the expression is: loops are cut short.
AgentResult evaluate(const AgentExpression& expression, AgentContext& context);

}  // namespace exo::rsp
