// Non-stop mode: GDB manual, "Remote Non-Stop" and "Notification Packets".
#include "stub/handlers/handlers.h"

namespace exo::stub::handlers {

// QNonStop:0   QNonStop:1   gdb sends one of them at connect, before it asks why the guest stands.
Result<Reply> set_non_stop(Session& session, std::string_view arguments) {
    if (arguments != "0" && arguments != "1") return fail(Errc::bad_request, "QNonStop is 0 or 1");
    const bool wanted = arguments == "1";
    if (wanted == session.non_stop.on()) return ok();
    if (!wanted) {
        session.non_stop.end();
    } else if (session.thread_suffix) {
        return fail(Errc::unsupported, "lldb has no non-stop mode");
    } else if (!session.run_control.views.processes.empty()) {
        return fail(Errc::unsupported, "threads of a process stop and run together; detach it first");
    } else if (!session.attached) {
        session.non_stop.turn_on();  // of what is attached later
    } else {
        session.non_stop.begin(session.last_stop.thread);
    }
    return ok();
}

// A notification is answered so; the last one by OK. The empty reply would make gdb ask again without end
// (gdb/remote-notif.c, remote_notif_get_pending_events).
Result<Reply> next_stopped(Session& session, std::string_view /*arguments*/) {
    Reply reply = text(session.non_stop.answer_acknowledgement());
    reply.closes = session.non_stop.finished();
    return reply;
}

Result<Reply> interrupt(Session& session, std::string_view /*arguments*/) {
    if (!session.non_stop.on()) return fail(Errc::bad_request, "vCtrlC is of non-stop mode");
    CHECK_OK(session.non_stop.interrupt(session.client.no_resumed));
    return ok();
}

}  // namespace exo::stub::handlers
