#include "rsp/breakpoint_program.h"

#include <utility>

#include "rsp/cursor.h"

namespace exo::rsp {

using Malformed = BreakpointProgram::Malformed;

std::variant<AgentExpression, Malformed> take_expression(std::string_view& text) {
    Cursor cursor(text);
    const auto length = cursor.take_number();
    if (!length || !cursor.take(',') || cursor.rest().size() / 2 < *length) return Malformed{};
    const auto bytes = from_hex(cursor.rest().substr(0, 2 * *length));
    if (!bytes) return Malformed{};
    AgentError error;
    auto expression = AgentExpression::parse(*bytes, error);
    if (!expression) return Malformed{error};
    text = cursor.rest().substr(2 * *length);
    return *std::move(expression);
}

// gdb writes one ';' before all the conditions and one before `cmds` (gdb/remote.c,
// remote_add_target_side_condition()); the manual has none between expressions, others may write them.
std::variant<BreakpointProgram, Malformed> BreakpointProgram::parse(std::string_view text) {
    BreakpointProgram program;
    auto* expressions = &program.conditions;
    while (!text.empty()) {
        Cursor cursor(text);
        if (cursor.take(';')) {
            text = cursor.rest();
        } else if (cursor.take("cmds:")) {
            const auto persistent = cursor.take_number();
            if (expressions == &program.commands || !persistent || !cursor.take(',')) return Malformed{};
            program.persistent = *persistent != 0;
            expressions = &program.commands;
            text = cursor.rest();
        } else if (cursor.take('X') && expressions->size() < most_expressions) {
            text = cursor.rest();
            auto expression = take_expression(text);
            if (auto* malformed = std::get_if<Malformed>(&expression)) return *malformed;
            expressions->push_back(std::get<AgentExpression>(std::move(expression)));
        } else {
            return Malformed{};
        }
    }
    return program;
}

}  // namespace exo::rsp
