// The session in non-stop mode: what must stand for a packet, and what is known while the guest runs.
#include "rsp/stop_reply.h"
#include "stub/handlers/handlers.h"
#include "stub/session.h"

namespace exo::stub {

bool Session::stands(Stands what) {
    if (non_stop.stands() || what == Stands::nothing) return true;
    if (what == Stands::guest) return false;
    if (what == Stands::memory && physical_addresses) return true;
    const auto thread = general();
    if (!thread) return false;
    if (what == Stands::memory && (*thread)->task && machine.os() != nullptr) return true;
    return (*thread)->vcpu && non_stop.stopped((*thread)->tid) != nullptr &&
           machine.has_all_registers(*(*thread)->vcpu);
}

Result<void> Session::make_stand(Stands what) {
    if (!stands(what)) return non_stop.pause();
    // What was read before is of another moment.
    if (!non_stop.stands() && what == Stands::memory) machine.forget_memory();
    return {};
}

const Thread* Session::find(ThreadKey thread) {
    if (!non_stop.on() || non_stop.stands()) return run_control.find(thread);
    const Thread* held = non_stop.stopped(thread);
    return held != nullptr ? held : run_control.last_threads().find(thread);
}

// As it was when the guest last stood; one that has begun since is looked for.
Result<const Thread*> Session::thread_while_running(const std::optional<rsp::ThreadId>& id) {
    const bool current = !id || id->tid == rsp::ThreadId::any || id->tid == rsp::ThreadId::all;
    if (id && !ThreadMap::names_process(id->pid)) {
        return fail(Errc::no_such_thread, "no such process: " + std::to_string(id->pid));
    }
    if (const Thread* found = find(current ? last_stop.thread : id->tid)) return found;
    CHECK_OK(non_stop.pause());
    return thread(id);
}

// To gdb a stop by vCont;t is the same as no stop at all, so `library` goes before stops of other kinds only.
NonStop::Report Session::report(const RunControl::Stop& stop) {
    last_stop = stop;
    if (!stop.exited && stop.signal != rsp::Signal::none && modules_changed()) {
        const RunControl::Stop told{.thread = stop.thread, .reason = rsp::StopReply::Reason::library};
        return {.reply = handlers::stop_reply(*this, told), .first_of_two = true};
    }
    return {.reply = handlers::stop_reply(*this, stop)};
}

std::string Session::end_of_thread(ThreadKey thread) const {
    rsp::StopReply reply;
    reply.kind = rsp::StopReply::Kind::thread_exited;
    reply.thread = {kernel_pid, thread};
    return rsp::to_string(reply, client.multiprocess);
}

std::optional<Reply> Session::poll_non_stop(std::chrono::milliseconds limit) {
    // No console output: gdb would take it for the reply to what it has just sent (remote_target::getpkt).
    Reply reply{.kind = Reply::Kind::silent};
    if (const auto polled = non_stop.poll(limit); !polled) {
        guest_gone = guest_gone || polled.error().code == Errc::target_gone;
    }
    append_notifications(reply);
    return reply.after.empty() ? std::nullopt : std::optional{std::move(reply)};
}

void Session::append_notifications(Reply& reply) {
    if (attached && guest_gone && !non_stop.gone())
        non_stop.guest_gone(handlers::stop_reply(*this, {.exited = true}));
    if (attached && non_stop.gone()) {
        attached = false;
        guest_gone = true;
        run_control.forget();
    }
    if (auto stop = non_stop.take_notification()) reply.after.push_back("Stop:" + *std::move(stop));
}

}  // namespace exo::stub
