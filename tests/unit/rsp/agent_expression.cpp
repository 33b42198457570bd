#include "rsp/agent_expression.h"

#include <map>
#include <vector>

#include <doctest/doctest.h>

#include "rsp/hex.h"

using namespace std::literals;
using namespace exo::rsp;

namespace {

using Fault = AgentError::Fault;

// Registers are ten times their number; memory from 0x1000 to 0x1fff has bytes that count up, and a string.
class FakeContext final : public AgentContext {
public:
    std::optional<std::uint64_t> register_value(std::uint64_t number) override {
        if (number >= 100) return std::nullopt;
        return number * 10;
    }
    std::size_t read_memory(std::uint64_t address, std::span<std::byte> out) override {
        for (std::size_t i = 0; i < out.size(); ++i) {
            if (address + i < 0x1000 || address + i > 0x1fff) return i;
            const std::uint64_t offset = address + i - 0x1000;
            out[i] = offset >= 0xf00 && offset < 0xf06 ? static_cast<std::byte>("hello"[offset - 0xf00])
                                                       : static_cast<std::byte>(offset);
        }
        return out.size();
    }
    std::optional<std::uint64_t> variable(std::uint64_t number) override {
        const auto it = variables.find(number);
        return it == variables.end() ? std::nullopt : std::optional{it->second};
    }
    bool set_variable(std::uint64_t number, std::uint64_t value) override {
        if (!variables.contains(number)) return false;
        variables[number] = value;
        return true;
    }
    void print(std::string_view text) override { printed += text; }
    Refusal collect_memory(std::uint64_t address, std::uint64_t length) override {
        if (!collects) return Fault::not_collecting;
        collected.emplace_back(address, length);
        return std::nullopt;
    }
    Refusal collect_variable(std::uint64_t number) override {
        if (!collects) return Fault::not_collecting;
        collected.emplace_back(number, 0);
        return std::nullopt;
    }

    std::map<std::uint64_t, std::uint64_t> variables{{1, 7}};
    std::string printed;
    bool collects = false;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> collected;
};

// Blanks are for the reader.
std::optional<AgentExpression> parse(std::string_view code, AgentError& error) {
    std::string digits{code};
    std::erase(digits, ' ');
    const auto bytes = from_hex(digits);
    REQUIRE(bytes);
    return AgentExpression::parse(*bytes, error);
}

AgentResult run(std::string_view code, FakeContext& context) {
    AgentError error;
    const auto expression = parse(code, error);
    REQUIRE_MESSAGE(expression, to_string(error));
    return evaluate(*expression, context);
}

// printf with the format as it is: zeros for function and channel, then what the user typed.
std::string print_code(std::string_view arguments, std::string_view format, std::size_t count) {
    std::string code = std::string{arguments} + " 2200 2200 34";
    code += to_hex(std::string(1, static_cast<char>(count)));
    const std::size_t length = format.size() + 1;
    code += to_hex(std::string{static_cast<char>(length >> 8U), static_cast<char>(length)});
    return code + to_hex(format) + "00 27";
}

constexpr std::uint64_t negative(std::uint64_t value) { return 0 - value; }

}  // namespace

TEST_CASE("what each opcode makes of the stack") {
    struct Row {
        std::string_view code;
        std::uint64_t value;
    };
    for (const auto& [code, value] : std::initializer_list<Row>{
             {"27", 0},
             {"2207 27", 7},
             {"230102 27", 0x102},
             {"2401020304 27", 0x1020304},
             {"250102030405060708 27", 0x102030405060708},
             {"26000c 27", 120},
             {"2205 2203 02 27", 8},
             {"2203 2205 03 27", negative(2)},
             {"2203 2205 04 27", 15},
             {"22f9 1608 2202 05 27", negative(3)},  // -7 / 2
             {"22f9 1608 2202 07 27", negative(1)},  // -7 % 2
             {"2207 2202 06 27", 3},
             {"2207 2202 08 27", 1},
             {"258000000000000000 22ff 1608 05 27", 0x8000000000000000},  // does not fit
             {"258000000000000000 22ff 1608 07 27", 0},
             {"2201 2204 09 27", 16},
             {"2201 2240 09 27", 0},
             {"22f0 1608 2202 0a 27", negative(4)},
             {"22f0 1608 22ff 0a 27", negative(1)},
             {"22f0 2202 0b 27", 0x3c},
             {"22f0 2240 0b 27", 0},
             {"2200 0e 27", 1},
             {"2205 0e 27", 0},
             {"220c 220a 0f 27", 8},
             {"220c 220a 10 27", 14},
             {"220c 220a 11 27", 6},
             {"2200 12 27", negative(1)},
             {"2205 2205 13 27", 1},
             {"2205 2206 13 27", 0},
             {"22ff 1608 2200 14 27", 1},
             {"22ff 1608 2200 15 27", 0},
             {"2201 2202 15 27", 1},
             {"22ff 1608 27", negative(1)},
             {"227f 1608 27", 0x7f},
             {"22ff 1640 27", 0xff},
             {"22ff 1600 27", 0},
             {"23ffff 2a08 27", 0xff},
             {"22ff 2a40 27", 0xff},
             {"231001 17 27", 1},
             {"231001 18 27", 0x201},
             {"231001 19 27", 0x4030201},
             {"231001 1a 27", 0x807060504030201},
             {"2205 28 02 27", 10},
             {"2205 2206 29 27", 5},
             {"2205 2203 2b 03 27", negative(2)},
             {"2201 2202 2203 3202 27", 1},   // pick
             {"2201 2202 2203 33 29 27", 1},  // rot: 3 1 2
             {"2201 2202 2203 33 29 29 27", 3},
             {"2201 200008 2205 27 2206 27", 6},
             {"2200 200008 2205 27 2206 27", 5},
             {"210005 2201 2202 27", 2},
             {"2c0001 27", 7},
             {"2209 2d0001 2c0001 02 27", 18},  // setv leaves its value
         }) {
        CAPTURE(code);
        FakeContext context;
        const auto result = run(code, context);
        REQUIRE_MESSAGE(!result.error, to_string(result.error.value_or(AgentError{})));
        CHECK(result.value == value);
    }
}

TEST_CASE("an expression that fails says where and at what") {
    struct Row {
        std::string_view code;
        AgentError error;
    };
    for (const auto& [code, error] : std::initializer_list<Row>{
             {"2201", {Fault::no_end, 0, 0}},
             {"02 27", {Fault::stack_underflow, 0, 0}},
             {"2201 2202 33 27", {Fault::stack_underflow, 4, 0}},
             {"2201 3201 27", {Fault::stack_underflow, 2, 0}},
             {"2201 210000", {Fault::stack_overflow, 0, 0}},
             {"210000", {Fault::too_many_steps, 0, 0}},
             {"2201 2200 05 27", {Fault::division_by_zero, 4, 0}},
             {"2201 2200 08 27", {Fault::division_by_zero, 4, 0}},
             {"260064 27", {Fault::no_register, 0, 100}},
             {"2210 17 27", {Fault::no_memory, 2, 0x10}},
             {"231ff9 1a 27", {Fault::no_memory, 3, 0x1ff9}},
             {"2c0002 27", {Fault::no_variable, 0, 2}},
             {"2200 2d0002 27", {Fault::no_variable, 2, 2}},
             {"2210 2204 0c 27", {Fault::not_collecting, 4, 0x10}},
             {"2e0001 27", {Fault::not_collecting, 0, 1}},
         }) {
        CAPTURE(code);
        FakeContext context;
        const auto result = run(code, context);
        REQUIRE(result.error);
        CHECK(to_string(*result.error) == to_string(error));
    }
}

TEST_CASE("what is no expression is refused") {
    struct Row {
        std::string_view code;
        AgentError error;
    };
    for (const auto& [code, error] : std::initializer_list<Row>{
             {"", {Fault::empty, 0, 0}},
             {"00", {Fault::bad_opcode, 0, 0}},
             {"2201 01", {Fault::bad_opcode, 2, 1}},        // float
             {"2201 1b 27", {Fault::bad_opcode, 2, 0x1b}},  // ref_float
             {"ff", {Fault::bad_opcode, 0, 0xff}},
             {"22", {Fault::cut_off, 0, 0}},
             {"27 25010203", {Fault::cut_off, 1, 0}},
             {"27 2000", {Fault::cut_off, 1, 0}},
             {"2201 200001 27", {Fault::bad_jump, 2, 1}},
             {"210003", {Fault::bad_jump, 0, 3}},
             {"34", {Fault::cut_off, 0, 0}},
             {"34 00 0004 61 00", {Fault::cut_off, 0, 0}},
             {"34 00 0000", {Fault::bad_format, 0, 0}},
             {"34 00 0002 6161", {Fault::bad_format, 0, 0}},
             {"34 01 0002 6100", {Fault::bad_format, 0, 0}},    // an argument too many
             {"34 01 0003 256600", {Fault::bad_format, 0, 0}},  // %f
             {"34 00 0003 5c7100", {Fault::bad_format, 0, 0}},  // \q
             {"34 00 0002 2500", {Fault::bad_format, 0, 0}},    // %
         }) {
        CAPTURE(code);
        AgentError found;
        CHECK_FALSE(parse(code, found));
        CHECK(to_string(found) == to_string(error));
    }
    const std::vector<std::byte> long_one(0x10000, std::byte{0x27});
    AgentError found;
    CHECK_FALSE(AgentExpression::parse(long_one, found));
    CHECK(found.fault == Fault::too_long);
}

TEST_CASE("an error in words") {
    CHECK(to_string(AgentError{Fault::no_memory, 3, 0x10}) ==
          "cannot access memory at 0x10 (offset 3 of the agent expression)");
    CHECK(to_string(AgentError{Fault::division_by_zero, 0, 0}) ==
          "division by zero (offset 0 of the agent expression)");
}

TEST_CASE("what is collected") {
    FakeContext context;
    context.collects = true;
    // trace, trace_quick and trace16, which leave the address, tracenz up to the NUL, tracev
    const auto result = run("231000 2208 0c 231010 0d04 300102 29 231f00 2240 2f 2e0001 27", context);
    CHECK_FALSE(result.error);
    using Pair = std::pair<std::uint64_t, std::uint64_t>;
    CHECK(context.collected ==
          std::vector<Pair>{{0x1000, 8}, {0x1010, 4}, {0x1010, 0x102}, {0x1f00, 6}, {1, 0}});
    // A string longer than its limit, and one that cannot be read.
    context.collected.clear();
    CHECK_FALSE(run("231f00 2203 2f 27", context).error);
    CHECK(context.collected == std::vector<Pair>{{0x1f00, 3}});
    CHECK(run("2210 2203 2f 27", context).error->fault == Fault::no_memory);
}

TEST_CASE("printf, by what is printed") {
    struct Row {
        std::string_view arguments;  // the first is pushed last
        std::string_view format;
        std::size_t count;
        std::string_view printed;
    };
    for (const auto& [arguments, format, count, printed] : std::initializer_list<Row>{
             {"", R"(a\n\t\\\"%%)", 0, "a\n\t\\\"%"},
             {"2202 2201", "%d %d", 2, "1 2"},
             {"22ff1608", "%d", 1, "-1"},
             {"22ff1608", "%u", 1, "4294967295"},
             {"22ff1608", "%lu", 1, "18446744073709551615"},
             {"22ff1608", "%hhu %%", 1, "255 %"},
             {"258000000000000000", "%ld", 1, "-9223372036854775808"},
             {"25ffffffff81000000", "0x%lx", 1, "0xffffffff81000000"},
             {"25ffffffff81000000", "%p", 1, "0xffffffff81000000"},
             {"22ab", "%#x|", 1, "0xab|"},
             {"22ab", "%X", 1, "AB"},
             {"2208", "%#o", 1, "010"},
             {"2207", "%5d|", 1, "    7|"},
             {"2207", "%-5d|", 1, "7    |"},
             {"22f91608", "%05d|", 1, "-0007|"},
             {"2207", "%+.3d|", 1, "+007|"},
             {"2207", "% d|", 1, " 7|"},
             {"2200", "%.0d|", 1, "|"},
             {"2241", "%c", 1, "A"},
             {"231f00", "%s", 1, "hello"},
             {"231f00", "%7s|", 1, "  hello|"},
             {"231f00", "%.2s|", 1, "he|"},
             {"2200", "%s", 1, "(null)"},
         }) {
        CAPTURE(format);
        FakeContext context;
        const auto result = run(print_code(arguments, format, count), context);
        REQUIRE_MESSAGE(!result.error, to_string(result.error.value_or(AgentError{})));
        CHECK(context.printed == printed);
    }
}

TEST_CASE("printf that cannot be") {
    FakeContext context;
    CHECK(run(print_code("2210", "%s", 1), context).error->fault == Fault::no_memory);
    CHECK(run(print_code("", "%d", 1), context).error->fault == Fault::stack_underflow);
    CHECK(context.printed.empty());
    AgentError error;
    CHECK_FALSE(parse(print_code("2200", "%99999d", 1), error));
    CHECK(error.fault == Fault::bad_format);
    // 4096 bytes over and over again
    std::string loop = print_code("", "%4096c", 1);
    loop = "2241" + loop.substr(0, loop.size() - 2) + "210000";
    const auto result = run(loop, context);
    CHECK(result.error->fault == Fault::too_much_output);
    CHECK(context.printed.size() <= 1U << 16U);
}
