// What stands behind a breakpoint: conditions and commands, no more of them than there may be.
#include "fuzz.h"
#include "rsp/breakpoint_program.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace exo::rsp;
    const std::string_view text = exo::fuzz::as_text(data, size);
    const auto result = BreakpointProgram::parse(text);
    const auto* program = std::get_if<BreakpointProgram>(&result);
    if (program == nullptr) return 0;
    exo::fuzz::require(program->conditions.size() <= BreakpointProgram::most_expressions);
    exo::fuzz::require(program->commands.size() <= BreakpointProgram::most_expressions);
    exo::fuzz::require(!program->persistent || text.find("cmds:") != std::string_view::npos);
    // Five characters at least for each.
    exo::fuzz::require((program->conditions.size() + program->commands.size()) * 5 <= text.size());
    return 0;
}
