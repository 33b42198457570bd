#include "rsp/agent_expression.h"

#include <algorithm>
#include <array>

#include "rsp/agent_opcodes.h"
#include "rsp/hex.h"

namespace exo::rsp {
namespace {

using Fault = AgentError::Fault;

const AgentOpInfo* info_of(std::uint8_t byte) {
    static constexpr auto by_byte = [] {
        std::array<std::uint8_t, 256> places{};  // 1 + index into agent_ops
        for (std::size_t i = 0; i < agent_ops.size(); ++i)
            places[static_cast<std::uint8_t>(agent_ops[i].op)] = static_cast<std::uint8_t>(i + 1);
        return places;
    }();
    return by_byte[byte] == 0 ? nullptr : &agent_ops[by_byte[byte] - 1U];
}

// What `value` is, where it is anything.
std::string_view words(Fault fault) {
    switch (fault) {
        case Fault::empty: return "there is no code";
        case Fault::too_long: return "the code is too long";
        case Fault::bad_opcode: return "there is no opcode ";
        case Fault::cut_off: return "the code ends within an instruction";
        case Fault::bad_jump: return "no instruction begins at ";
        case Fault::bad_format:
            return "printf: the format cannot be printed here, or its arguments do not fit";
        case Fault::no_end: return "the code has no end";
        case Fault::stack_underflow: return "the stack is empty";
        case Fault::stack_overflow: return "the stack is full";
        case Fault::too_many_steps: return "it does not come to an end";
        case Fault::too_much_output: return "it prints too much";
        case Fault::division_by_zero: return "division by zero";
        case Fault::no_register: return "cannot read register ";
        case Fault::no_memory: return "cannot access memory at ";
        case Fault::no_variable: return "there is no trace state variable ";
        case Fault::not_collecting: return "only a tracepoint can collect";
        case Fault::buffer_full: return "the trace buffer is full";
    }
    return "";
}

bool has_value(Fault fault) { return words(fault).ends_with(' '); }

}  // namespace

std::string to_string(const AgentError& error) {
    std::string text{words(error.fault)};
    if (has_value(error.fault)) {
        text += "0x";
        append_hex_number(text, error.value);
    }
    return text + " (offset " + std::to_string(error.offset) + " of the agent expression)";
}

class AgentExpression::Parser {
public:
    Parser(std::span<const std::byte> bytes, AgentExpression& expression, AgentError& error)
        : bytes_(bytes), expression_(expression), error_(error) {}

    bool parse() {
        if (bytes_.empty()) return refuse(Fault::empty);
        if (bytes_.size() > most_bytes) return refuse(Fault::too_long);
        while (at_ < bytes_.size()) {
            if (!instruction()) return false;
        }
        return std::ranges::all_of(expression_.instructions_, [this](auto& i) { return resolve(i); });
    }

private:
    bool refuse(Fault fault, std::uint64_t value = 0) {
        error_ = {fault, start_, value};
        return false;
    }

    bool instruction() {
        start_ = static_cast<std::uint32_t>(at_);
        const auto byte = std::to_integer<std::uint8_t>(bytes_[at_++]);
        const AgentOpInfo* info = info_of(byte);
        if (info == nullptr) return refuse(Fault::bad_opcode, byte);
        std::uint64_t operand = 0;
        if (!number(info->operand, operand)) return false;
        if (info->op == AgentOp::printf && !format(operand)) return false;
        expression_.instructions_.push_back({info->op, start_, operand});
        return true;
    }

    bool number(std::size_t size, std::uint64_t& value) {
        if (bytes_.size() - at_ < size) return refuse(Fault::cut_off);
        value = 0;
        for (; size > 0; --size) value = value << 8U | std::to_integer<std::uint64_t>(bytes_[at_++]);
        return true;
    }

    // printf COUNT LENGTH TEXT, where TEXT ends with a NUL (gdb/ax-general.c, ax_string()).
    bool format(std::uint64_t& index) {
        std::uint64_t count = 0;
        std::uint64_t length = 0;
        if (!number(1, count) || !number(2, length)) return false;
        if (bytes_.size() - at_ < length) return refuse(Fault::cut_off);
        const std::string_view text{reinterpret_cast<const char*>(bytes_.data()) + at_, length};
        at_ += length;
        if (!text.ends_with('\0')) return refuse(Fault::bad_format);
        auto format = AgentFormat::parse(text.substr(0, text.find('\0')));
        if (!format || format->arguments() != count) return refuse(Fault::bad_format);
        index = expression_.formats_.size();
        expression_.formats_.push_back(*std::move(format));
        return true;
    }

    // The offset that a jump has becomes an index.
    bool resolve(Instruction& instruction) {
        if (instruction.op != AgentOp::if_goto && instruction.op != AgentOp::go_to) return true;
        start_ = instruction.offset;
        const auto target = std::ranges::lower_bound(expression_.instructions_, instruction.operand, {},
                                                     &Instruction::offset);
        if (target == expression_.instructions_.end() || target->offset != instruction.operand)
            return refuse(Fault::bad_jump, instruction.operand);
        instruction.operand = static_cast<std::uint64_t>(target - expression_.instructions_.begin());
        return true;
    }

    std::span<const std::byte> bytes_;
    AgentExpression& expression_;
    AgentError& error_;
    std::size_t at_ = 0;
    std::uint32_t start_ = 0;
};

std::optional<AgentExpression> AgentExpression::parse(std::span<const std::byte> bytes, AgentError& error) {
    AgentExpression expression;
    if (!Parser{bytes, expression, error}.parse()) return std::nullopt;
    return expression;
}

}  // namespace exo::rsp
