// Z and z.
#include "stub/handlers/handlers.h"

namespace exo::stub::handlers {
namespace {

// Of a watchpoint: bytes. How much of it the machine can watch, it says itself.
constexpr std::uint64_t longest_watch = UINT32_MAX;

Result<BreakpointKey> key_of(const rsp::Breakpoint& request) {
    if (request.type > 4) return fail(Errc::bad_request, "there are breakpoints of types 0 to 4");
    const auto kind = static_cast<BreakpointKind>(request.type);
    // Their kind is the length of the breakpoint instruction: 1 on x86.
    if (kind == BreakpointKind::software || kind == BreakpointKind::hardware) {
        return BreakpointKey{kind, VirtualAddress{request.address}, 1};
    }
    if (request.kind == 0 || request.kind > longest_watch ||
        request.address + request.kind - 1 < request.address)
        return fail(Errc::bad_request, "a watchpoint covers at least one byte, up to the last address");
    return BreakpointKey{kind, VirtualAddress{request.address}, static_cast<std::uint32_t>(request.kind)};
}

}  // namespace

Result<Reply> insert_breakpoint_of_type(Session& session, char type, std::string_view arguments) {
    const auto parsed = rsp::Breakpoint::parse(std::string{type, ','}.append(arguments));
    if (!parsed) return fail(Errc::bad_request, "malformed breakpoint");
    const rsp::Breakpoint& request = *parsed;
    // Conditions are sent only to who advertises ConditionalBreakpoints; to drop one would stop too often.
    if (!request.conditions.empty())
        return fail(Errc::unsupported, "conditions are the client's to evaluate");
    CHECK_OK(session.run_control.breakpoints.insert(TRY(key_of(request))));
    return ok();
}

// OK also for one that is not there.
Result<Reply> remove_breakpoint(Session& session, const rsp::Breakpoint& request) {
    session.run_control.breakpoints.remove(TRY(key_of(request)));
    return ok();
}

}  // namespace exo::stub::handlers
