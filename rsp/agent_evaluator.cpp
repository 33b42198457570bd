#include <algorithm>
#include <array>

#include "rsp/agent_expression.h"
#include "rsp/agent_opcodes.h"

namespace exo::rsp {
namespace {

using Fault = AgentError::Fault;

// gdbserver's stack has 100 (gdbserver/ax.cc, STACK_MAX); gdb's expressions take a few.
constexpr std::size_t stack_size = 128;
// A condition is a dozen instructions, one that follows a string by `while` some thousands.
constexpr std::size_t most_steps = 100'000;
constexpr std::size_t most_output = 1U << 16U;
constexpr std::size_t longest_string = 4096;
constexpr std::size_t string_piece = 64;

constexpr std::array<AgentOpInfo, 64> infos = [] {
    std::array<AgentOpInfo, 64> table{};
    for (const AgentOpInfo& info : agent_ops) table.at(static_cast<std::size_t>(info.op)) = info;
    return table;
}();

std::uint64_t masked(std::uint64_t value, std::uint64_t bits) {
    return bits >= 64 ? value : value & ((std::uint64_t{1} << bits) - 1);
}

std::uint64_t sign_extended(std::uint64_t value, std::uint64_t bits) {
    if (bits == 0 || bits >= 64) return bits == 0 ? 0 : value;
    const std::uint64_t sign = std::uint64_t{1} << (bits - 1);
    return (masked(value, bits) ^ sign) - sign;
}

std::int64_t as_signed(std::uint64_t value) { return static_cast<std::int64_t>(value); }

// The quotient that does not fit wraps around, as the processor's other arithmetic does.
std::uint64_t divide_signed(std::uint64_t a, std::uint64_t b) {
    return b == ~std::uint64_t{0} ? 0 - a : static_cast<std::uint64_t>(as_signed(a) / as_signed(b));
}

std::uint64_t remainder_signed(std::uint64_t a, std::uint64_t b) {
    return b == ~std::uint64_t{0} ? 0 : static_cast<std::uint64_t>(as_signed(a) % as_signed(b));
}

std::uint64_t shift_right_signed(std::uint64_t a, std::uint64_t count) {
    return static_cast<std::uint64_t>(as_signed(a) >> std::min<std::uint64_t>(count, 63));
}

class Evaluator {
public:
    Evaluator(const AgentExpression& expression, AgentContext& context)
        : expression_(expression), context_(context) {}

    AgentResult run() {
        const auto code = expression_.instructions();
        for (std::size_t step = 0; step < most_steps; ++step) {
            if (next_ >= code.size()) return failed({Fault::no_end, code.back().offset, 0});
            const auto& instruction = code[next_++];
            if (instruction.op == AgentOp::end) return {.value = depth_ == 0 ? 0 : top()};
            const AgentOpInfo& info = infos.at(static_cast<std::size_t>(instruction.op));
            fault_.reset();
            if (depth_ < info.takes) {
                refuse(Fault::stack_underflow);
            } else if (depth_ - info.takes + info.leaves > stack_size) {
                refuse(Fault::stack_overflow);
            } else {
                execute(instruction);
            }
            if (fault_) return failed({*fault_, instruction.offset, value_});
        }
        return failed({Fault::too_many_steps, code[std::min(next_, code.size() - 1)].offset, 0});
    }

private:
    static AgentResult failed(AgentError error) { return {.error = error}; }
    void refuse(Fault fault, std::uint64_t value = 0) {
        fault_ = fault;
        value_ = value;
    }
    std::uint64_t& top() { return stack_.at(depth_ - 1); }
    std::uint64_t pop() { return stack_.at(--depth_); }
    void push(std::uint64_t value) { stack_.at(depth_++) = value; }

    void execute(const AgentExpression::Instruction& instruction) {
        const std::uint64_t operand = instruction.operand;
        switch (instruction.op) {
            case AgentOp::log_not: top() = top() == 0 ? 1 : 0; break;
            case AgentOp::bit_not: top() = ~top(); break;
            case AgentOp::ext: top() = sign_extended(top(), operand); break;
            case AgentOp::zero_ext: top() = masked(top(), operand); break;
            case AgentOp::ref8: load(1); break;
            case AgentOp::ref16: load(2); break;
            case AgentOp::ref32: load(4); break;
            case AgentOp::ref64: load(8); break;
            case AgentOp::if_goto:
                if (pop() != 0) next_ = operand;
                break;
            case AgentOp::go_to: next_ = operand; break;
            case AgentOp::const8:
            case AgentOp::const16:
            case AgentOp::const32:
            case AgentOp::const64: push(operand); break;
            case AgentOp::reg:
                push_known(context_.register_value(operand), Fault::no_register, operand);
                break;
            case AgentOp::getv: push_known(context_.variable(operand), Fault::no_variable, operand); break;
            case AgentOp::setv:
                if (!context_.set_variable(operand, top())) refuse(Fault::no_variable, operand);
                break;
            case AgentOp::dup: push(top()); break;
            case AgentOp::pop: pop(); break;
            case AgentOp::pick: pick(operand); break;
            case AgentOp::swap: std::swap(stack_.at(depth_ - 1), stack_.at(depth_ - 2)); break;
            case AgentOp::rot: {  // a b c: c a b
                const auto last = stack_.begin() + static_cast<std::ptrdiff_t>(depth_);
                std::rotate(last - 3, last - 1, last);
                break;
            }
            case AgentOp::trace:
            case AgentOp::trace_quick:
            case AgentOp::trace16:
            case AgentOp::tracenz:
            case AgentOp::tracev: collect(instruction); break;
            case AgentOp::printf: print(expression_.format(operand)); break;
            default: {
                const std::uint64_t b = pop();
                top() = binary(instruction.op, top(), b);
                break;
            }
        }
    }

    std::uint64_t binary(AgentOp op, std::uint64_t a, std::uint64_t b) {
        switch (op) {
            case AgentOp::add: return a + b;
            case AgentOp::sub: return a - b;
            case AgentOp::mul: return a * b;
            case AgentOp::lsh: return b >= 64 ? 0 : a << b;
            case AgentOp::rsh_signed: return shift_right_signed(a, b);
            case AgentOp::rsh_unsigned: return b >= 64 ? 0 : a >> b;
            case AgentOp::bit_and: return a & b;
            case AgentOp::bit_or: return a | b;
            case AgentOp::bit_xor: return a ^ b;
            case AgentOp::equal: return a == b ? 1 : 0;
            case AgentOp::less_signed: return as_signed(a) < as_signed(b) ? 1 : 0;
            case AgentOp::less_unsigned: return a < b ? 1 : 0;
            default: break;
        }
        if (b == 0) {
            refuse(Fault::division_by_zero);
            return 0;
        }
        switch (op) {
            case AgentOp::div_signed: return divide_signed(a, b);
            case AgentOp::div_unsigned: return a / b;
            case AgentOp::rem_signed: return remainder_signed(a, b);
            default: return a % b;  // rem_unsigned, the last of them
        }
    }

    void push_known(std::optional<std::uint64_t> value, Fault fault, std::uint64_t number) {
        if (!value) return refuse(fault, number);
        push(*value);
    }

    void pick(std::uint64_t depth) {
        if (depth >= depth_) return refuse(Fault::stack_underflow);
        push(stack_.at(depth_ - 1 - depth));
    }

    void load(std::size_t size) {
        std::array<std::byte, 8> bytes{};
        const std::uint64_t address = top();
        if (context_.read_memory(address, std::span{bytes}.first(size)) != size)
            return refuse(Fault::no_memory, address);
        std::uint64_t value = 0;
        for (std::size_t i = size; i > 0; --i)
            value = value << 8U | std::to_integer<std::uint64_t>(bytes[i - 1]);
        top() = value;
    }

    // A string up to its NUL, or as far as `limit` and the memory go. Nothing where not even its first byte
    // can be read.
    std::optional<std::string> read_string(std::uint64_t address, std::size_t limit) {
        std::string text;
        std::array<std::byte, string_piece> bytes{};
        while (text.size() < limit) {
            // Not across a page at once: the string may end before it.
            const std::size_t in_page = 4096 - (address + text.size()) % 4096;
            const auto piece = std::span{bytes}.first(std::min({string_piece, limit - text.size(), in_page}));
            const std::size_t count = context_.read_memory(address + text.size(), piece);
            const std::string_view read{reinterpret_cast<const char*>(piece.data()), count};
            text += read.substr(0, read.find('\0'));
            if (read.find('\0') != std::string_view::npos) return text;
            if (count < piece.size()) break;
        }
        if (text.empty() && limit > 0) return std::nullopt;
        return text;
    }

    void collect(const AgentExpression::Instruction& instruction) {
        if (instruction.op == AgentOp::tracev)
            return refused_by_context(context_.collect_variable(instruction.operand), instruction.operand);
        std::uint64_t length = instruction.operand;
        if (instruction.op == AgentOp::trace || instruction.op == AgentOp::tracenz) length = pop();
        const bool stays = instruction.op == AgentOp::trace_quick || instruction.op == AgentOp::trace16;
        const std::uint64_t address = stays ? top() : pop();
        if (instruction.op == AgentOp::tracenz) {
            const auto text = read_string(address, std::min<std::uint64_t>(length, longest_string));
            if (!text) return refuse(Fault::no_memory, address);
            length = std::min<std::uint64_t>(length, text->size() + 1);
        }
        if (length > 0) refused_by_context(context_.collect_memory(address, length), address);
    }

    void refused_by_context(AgentContext::Refusal refusal, std::uint64_t value) {
        if (refusal) refuse(*refusal, value);
    }

    // The function and the channel lie on top of the arguments, of which the first is the uppermost
    // (gdb/ax-gdb.c, gen_printf()).
    void print(const AgentFormat& format) {
        pop();
        pop();
        if (depth_ < format.arguments()) return refuse(Fault::stack_underflow);
        std::array<std::uint64_t, stack_size> arguments{};
        for (std::size_t i = 0; i < format.arguments(); ++i) arguments.at(i) = pop();
        const auto strings = [this](std::uint64_t address) { return read_string(address, longest_string); };
        std::uint64_t unreadable = 0;
        const auto text = format.print(std::span{arguments}.first(format.arguments()), strings, unreadable);
        if (!text) return refuse(Fault::no_memory, unreadable);
        printed_ += text->size();
        if (printed_ > most_output) return refuse(Fault::too_much_output);
        context_.print(*text);
    }

    const AgentExpression& expression_;
    AgentContext& context_;
    std::array<std::uint64_t, stack_size> stack_{};
    std::size_t depth_ = 0;
    std::size_t next_ = 0;
    std::size_t printed_ = 0;
    std::optional<Fault> fault_;
    std::uint64_t value_ = 0;
};

}  // namespace

AgentResult evaluate(const AgentExpression& expression, AgentContext& context) {
    return Evaluator{expression, context}.run();
}

}  // namespace exo::rsp
