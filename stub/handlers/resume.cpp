// Resuming, and the stop reply.
#include <algorithm>
#include <iterator>
#include <utility>

#include "rsp/hex.h"
#include "stub/handlers/handlers.h"

namespace exo::stub::handlers {
namespace {

bool resumes(const rsp::Resume& request, ThreadKey thread) {
    const auto own = std::ranges::find_if(request.actions, [&](const rsp::ResumeAction& action) {
        const auto tid = action.thread.tid;
        return tid == rsp::ThreadId::all || tid == rsp::ThreadId::any || tid == thread;
    });
    return own != request.actions.end() && own->kind != rsp::ResumeAction::Kind::stop;
}

Result<Reply> start(Session& session, const rsp::Resume& request) {
    if (session.machine.target().execution() == nullptr) {
        return fail(Errc::unsupported, session.machine.target().description() + " cannot run");
    }
    if (session.non_stop.on()) {
        CHECK_OK(session.non_stop.apply(request));
        return ok();
    }
    if (session.guest_gone) return session.exit_reply();
    // The guest has stopped already, and the client comes for it (Session::held_stop).
    if (session.held_stop && resumes(request, session.held_stop->thread)) {
        session.running = true;
        return Reply{.kind = Reply::Kind::resumed};
    }
    session.held_stop.reset();
    session.trace_frame.reset();
    session.run_control.tell_of_kernel(session.takes_library_stops() && session.run_control.views.kernel);
    session.run_control.tell_of_processes(session.told_of_processes());
    session.run_control.set_current_process(session.last_stop.process);
    auto resumed = session.run_control.resume(request);
    // As a stop reply: an error here is to gdb a guest that goes on standing (remote_target::wait_as).
    if (!resumed && resumed.error().code == Errc::target_gone) return session.exit_reply();
    CHECK_OK(std::move(resumed));
    session.running = true;
    session.threads_replaced = false;
    Reply reply{.kind = Reply::Kind::resumed};
    // A reply to Z has no place for it: what gdb shows of an error there is that it could not insert it.
    std::ranges::move(session.run_control.breakpoints.take_news(), std::back_inserter(session.news));
    for (const std::string& line : std::exchange(session.news, {}))
        reply.before.push_back("O" + rsp::to_hex("exogdb: " + line + "\n"));
    return reply;
}

// c, C, s, S: of the thread that Hc selected. A step is of one thread and the rest runs on, as gdb's own
// default for vCont.
Result<Reply> old_style(Session& session, char letter, std::string_view arguments) {
    if (session.non_stop.on()) return fail(Errc::bad_request, "in non-stop mode there is vCont only");
    std::optional<std::uint64_t> from;
    auto request = rsp::Resume::parse_old(letter, arguments, from);
    if (!request || request->actions.empty()) return fail(Errc::bad_request, "malformed resume request");
    const Thread* thread = TRY(session.thread(session.continue_thread));
    if (from) {
        RegisterSet registers = TRY(session.registers(*thread));
        const RegisterNumber pc = registers.layout().pc;
        registers.set(pc, *from);
        CHECK_OK(session.write_registers(*thread, registers, std::span{&pc, 1}));
    }
    if (letter == 's' || letter == 'S') {
        request->actions.front().thread = thread->id();
        request->actions.push_back({});
    }
    return start(session, *request);
}

rsp::StopReply to_reply(Session& session, const RunControl::Stop& stop) {
    rsp::StopReply reply{.signal = stop.signal, .thread = {stop.process, stop.thread}};
    if (stop.exited) {
        reply.set_wait_status(stop.exit_code);
        return reply;
    }
    using Reason = rsp::StopReply::Reason;
    const bool told = (stop.reason != Reason::swbreak || session.client.swbreak) &&
                      (stop.reason != Reason::hwbreak || session.client.hwbreak);
    if (told) reply.reason = stop.reason;
    reply.watch_address = raw(stop.watch_address);
    reply.forked = {stop.child, stop.child};
    reply.program = stop.program;
    reply.system_call = stop.system_call;
    const Thread* thread = stop.process == kernel_pid ? session.run_control.find(stop.thread)
                                                      : session.thread(reply.thread).value_or(nullptr);
    if (thread == nullptr) return reply;
    if (thread->task) reply.core = thread->task->cpu;
    if (!thread->task && thread->vcpu) reply.core = thread->vcpu;
    append_expedited(reply, session, *thread);
    if (session.list_threads_in_stop) reply.extra = lldb_stop_keys(session);
    return reply;
}

}  // namespace

std::string stop_reply(Session& session, const RunControl::Stop& stop) {
    return rsp::to_string(to_reply(session, stop), session.client.multiprocess);
}

std::string stop_reply(Session& session) { return stop_reply(session, session.last_stop); }

// `?` with nothing attached: W00, which extended-remote takes for "attach something".
Result<Reply> halt_reason(Session& session, std::string_view /*arguments*/) {
    // gdb has been told by then (vMustReplyEmpty), and takes no error here.
    if (!session.attached && session.open_error && !session.client.swbreak) return fail(*session.open_error);
    if (!session.attached) return text("W00");
    if (session.non_stop.on()) return text(session.non_stop.answer_halt_reason());
    return text(stop_reply(session));
}

// gdb drops vCont altogether unless c, C, s and S are all there. `t` is for non-stop, harmless here.
Result<Reply> resume_actions(Session& /*session*/, std::string_view /*arguments*/) {
    return text("vCont;c;C;s;S;t;r");
}

Result<Reply> resume(Session& session, const rsp::Resume& request) { return start(session, request); }

Result<Reply> go_on(Session& session, std::string_view arguments) {
    return old_style(session, 'c', arguments);
}
Result<Reply> go_on_with_signal(Session& session, std::string_view arguments) {
    return old_style(session, 'C', arguments);
}
Result<Reply> step(Session& session, std::string_view arguments) {
    return old_style(session, 's', arguments);
}
Result<Reply> step_with_signal(Session& session, std::string_view arguments) {
    return old_style(session, 'S', arguments);
}

}  // namespace exo::stub::handlers
