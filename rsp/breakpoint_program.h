// What comes behind a breakpoint in its Z packet: `;X3,220127;cmds:0,X…`.
#pragma once

#include <optional>
#include <string_view>
#include <variant>
#include <vector>

#include "rsp/agent_expression.h"

namespace exo::rsp {

struct BreakpointProgram {
    std::vector<AgentExpression> conditions;  // it is hit if one of them is true, or if there is none
    std::vector<AgentExpression> commands;    // what is done at a hit, in place of a stop
    bool persistent = false;                  // the commands are to be done when the client has gone, too

    static constexpr std::size_t most_expressions = 256;

    [[nodiscard]] bool empty() const { return conditions.empty() && commands.empty(); }
    // From the ';' on. Malformed: nothing, or what is wrong with which expression.
    struct Malformed {
        std::optional<AgentError> error;
    };
    static std::variant<BreakpointProgram, Malformed> parse(std::string_view text);
};

// LENGTH,BYTES of an expression, behind its X. Cuts it off `text`.
std::variant<AgentExpression, BreakpointProgram::Malformed> take_expression(std::string_view& text);

}  // namespace exo::rsp
