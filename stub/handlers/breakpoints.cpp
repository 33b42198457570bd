// Z and z, QCatchSyscalls.
#include <algorithm>
#include <utility>
#include <variant>

#include "rsp/breakpoint_program.h"
#include "stub/handlers/handlers.h"

namespace exo::stub::handlers {
namespace {

// Of a watchpoint: bytes. How much of it the machine can watch, it says itself.
constexpr std::uint64_t longest_watch = UINT32_MAX;

// In the address space of the current process.
Result<BreakpointKey> key_of(const Session& session, const rsp::Breakpoint& request) {
    const std::int64_t process = session.current_process();
    if (request.type > 4) return fail(Errc::bad_request, "there are breakpoints of types 0 to 4");
    const auto kind = static_cast<BreakpointKind>(request.type);
    // Their kind is the length of the breakpoint instruction: 1 on x86.
    if (kind == BreakpointKind::software || kind == BreakpointKind::hardware) {
        return BreakpointKey{kind, VirtualAddress{request.address}, 1, process};
    }
    if (request.kind == 0 || request.kind > longest_watch ||
        request.address + request.kind - 1 < request.address)
        return fail(Errc::bad_request, "a watchpoint covers at least one byte, up to the last address");
    return BreakpointKey{kind, VirtualAddress{request.address}, static_cast<std::uint32_t>(request.kind),
                         process};
}

// gdb sends none with a watchpoint (gdb/remote.c, remote_target::insert_watchpoint); to drop one that comes
// would stop too often. Commands end with the client, persistent or not: `set disconnected-dprintf` is on
// where its user has not said otherwise, and to refuse would refuse nearly all of them.
Result<rsp::BreakpointProgram> program_of(const rsp::Breakpoint& request) {
    auto parsed = rsp::BreakpointProgram::parse(request.conditions);
    if (const auto* malformed = std::get_if<rsp::BreakpointProgram::Malformed>(&parsed)) {
        return fail(Errc::bad_request,
                    malformed->error ? rsp::to_string(*malformed->error) : "malformed condition or command");
    }
    auto program = std::get<rsp::BreakpointProgram>(std::move(parsed));
    if (request.type > 1 && !program.empty())
        return fail(Errc::unsupported, "a watchpoint has no condition that is evaluated here");
    return program;
}

// Of an attached process, and such that its system calls are seen.
bool is_of_64_bit_process(Session& session, const Thread& thread) {
    return session.run_control.views.process_of(thread) && !session.machine.is_32_bit(*thread.task);
}

}  // namespace

Result<Reply> insert_breakpoint_of_type(Session& session, char type, std::string_view arguments) {
    const auto parsed = rsp::Breakpoint::parse(std::string{type, ','}.append(arguments));
    if (!parsed) return fail(Errc::bad_request, "malformed breakpoint");
    const rsp::Breakpoint& request = *parsed;
    const BreakpointKey key = TRY(key_of(session, request));
    auto program = TRY(program_of(request));
    CHECK_OK(session.run_control.breakpoints.insert(key));
    session.run_control.conditions.set(key, std::move(program));
    return ok();
}

// OK also for one that is not there.
Result<Reply> remove_breakpoint(Session& session, const rsp::Breakpoint& request) {
    const BreakpointKey key = TRY(key_of(session, request));
    session.run_control.breakpoints.remove(key);
    session.run_control.conditions.remove(key);
    return ok();
}

Result<Reply> catch_system_calls(Session& session, const rsp::CatchSystemCalls& request) {
    const auto& threads = session.run_control.threads().threads();
    const bool has_some = std::ranges::any_of(
        threads, [&](const Thread& thread) { return is_of_64_bit_process(session, thread); });
    if (request.on && !has_some)
        return fail(Errc::unsupported, "system calls are caught of 64-bit programs only");
    session.run_control.catch_calls(request);
    return ok();
}

}  // namespace exo::stub::handlers
