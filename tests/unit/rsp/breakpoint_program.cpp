#include "rsp/breakpoint_program.h"

#include <doctest/doctest.h>

using namespace exo::rsp;

namespace {

std::optional<BreakpointProgram> parsed(std::string_view text) {
    auto result = BreakpointProgram::parse(text);
    if (auto* program = std::get_if<BreakpointProgram>(&result)) return std::move(*program);
    return std::nullopt;
}

}  // namespace

TEST_CASE("conditions and commands behind a breakpoint") {
    struct Row {
        std::string_view text;
        std::size_t conditions, commands;
        bool persistent;
    };
    for (const auto& [text, conditions, commands, persistent] : std::initializer_list<Row>{
             {"", 0, 0, false},
             {";X3,220127", 1, 0, false},
             {";X3,220127X1,27", 2, 0, false},   // as gdb sends two
             {";X3,220127;X1,27", 2, 0, false},  // as others may
             {";cmds:1,X1,27", 0, 1, true},
             {";X3,220127;cmds:0,X1,27X1,27", 1, 2, false},
         }) {
        CAPTURE(text);
        const auto program = parsed(text);
        REQUIRE(program);
        CHECK(program->conditions.size() == conditions);
        CHECK(program->commands.size() == commands);
        CHECK(program->persistent == persistent);
        CHECK(program->empty() == (conditions + commands == 0));
    }
}

TEST_CASE("malformed conditions and commands") {
    for (const std::string_view text :
         {"X", ";X", ";X3", ";X3,", ";X3,2201", ";X3,22012z", ";X4,220127", ";Y", ";cmds:", ";cmds:0",
          ";cmds:,X1,27", ";cmds:0,;cmds:0,", ";Xffffffffffffffff,27", ";X0,", ";X1,27 "}) {
        CAPTURE(text);
        CHECK_FALSE(parsed(text));
    }
    std::string many = ";";
    for (std::size_t i = 0; i <= BreakpointProgram::most_expressions; ++i) many += "X1,27";
    CHECK_FALSE(parsed(many));
    const auto result = BreakpointProgram::parse(";X3,220127X2,2701");
    const auto* malformed = std::get_if<BreakpointProgram::Malformed>(&result);
    REQUIRE(malformed);
    REQUIRE(malformed->error);
    CHECK(to_string(*malformed->error) == "there is no opcode 0x1 (offset 1 of the agent expression)");
}
