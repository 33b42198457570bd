#include "stub/session.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "stub/handlers/handlers.h"
#include "stub/packet.h"

namespace exo::stub {

Result<void> Session::attach_guest() {
    open_error.reset();
    auto opened = stop_guest();
    if (!opened) open_error = opened.error();
    guest_gone = !opened && opened.error().code == Errc::target_gone;
    return opened;
}

Result<void> Session::stop_guest() {
    auto* execution = machine.target().execution();
    if (execution != nullptr) CHECK_OK(execution->attach());
    attached = true;
    run_control.forget();
    run_control.views = {};
    if (auto looked = machine.look(); !looked) {
        static_cast<void>(close());
        return looked;
    }
    opened_generation = machine.os_generation();
    program_generation.reset();
    stop_at_first_vcpu();
    if (!options.process.empty()) {
        auto pid = find_process(options.process);
        auto checked = pid ? attach_process(*pid) : Result<void>{fail(std::move(pid).error())};
        if (!checked) {
            static_cast<void>(close());
            return checked;
        }
        run_control.views.kernel = false;
    }
    if (non_stop.on()) non_stop.begin(last_stop.thread);
    return {};
}

void Session::stop_at_first_vcpu() {
    last_stop = {};
    if (const Thread* first = run_control.fresh_threads().on_vcpu(0)) last_stop.thread = first->tid;
    run_control.put_first(last_stop.thread);
}

Result<void> Session::close() {
    running = false;
    if (program_wait_) {
        auto cancelled = program_wait_->cancel();
        program_wait_.reset();
        return cancelled;
    }
    if (!attached) return {};
    attached = false;
    general_thread.reset();
    continue_thread.reset();
    held_stop.reset();
    trace_frame.reset();
    non_stop.forget();
    run_control.views = {};
    last_stop.process = kernel_pid;
    auto* execution = machine.target().execution();
    auto detached = execution != nullptr ? execution->detach() : Result<void>{};
    run_control.forget();
    machine.forget();
    return detached;
}

bool Session::waits_for_stop(std::string_view payload) {
    const Packet* packet = find_packet(payload);
    return packet != nullptr && !packet->while_running;
}

bool Session::is_slow(std::string_view payload) {
    const Packet* packet = find_packet(payload);
    return packet != nullptr && packet->slow;
}

Reply Session::dispatch(std::string_view payload) {
    const Packet* packet = find_packet(payload);
    if (packet == nullptr || (packet->available != nullptr && !packet->available(*this)))
        return unknown_packet();
    const ErrorStyle style{.text_allowed = packet->text_errors || client.error_message,
                           .lldb_strings = error_strings};
    if (!attached && !packet->when_detached) {
        return text(render_error(
            {Errc::no_such_thread,
             "no guest is attached; `attach " + std::to_string(kernel_pid) + "` attaches it again"},
            style));
    }
    auto handled = handle(*packet, payload.substr(packet->name.size()));
    Reply reply;
    if (handled) {
        reply = *std::move(handled);
    } else {
        spdlog::debug("{}: {}", packet->name, handled.error().message);
        reply = text(render_error(handled.error(), style));
        // A client that is not told of a stop does not expect one: it learns at its next resume that the
        // guest has ended.
        if (handled.error().code == Errc::target_gone) guest_gone = true;
    }
    if (non_stop.on()) append_notifications(reply);
    return reply;
}

Result<Reply> Session::handle(const Packet& packet, std::string_view arguments) {
    if (non_stop.on() && attached) CHECK_OK(make_stand(packet.stands));
    return packet.handle(*this, arguments);
}

Reply Session::exit_reply() {
    attached = running = false;
    guest_gone = true;
    const auto& views = run_control.views;
    const bool known = views.kernel || views.processes.empty();
    last_stop = {.exited = true, .process = known ? kernel_pid : *views.processes.begin()};
    run_control.forget();
    Reply reply = text(handlers::stop_reply(*this));
    reply.closes = true;
    return reply;
}

namespace {

std::vector<std::string> library_paths(Session& session) {
    Machine& machine = session.machine;
    std::vector<std::string> paths;
    const auto kernel =
        session.kernel_is_library() ? machine.kernel_library() : fail(Errc::not_found, "it is the program");
    if (kernel) paths.push_back(kernel->path);
    for (const auto& module : machine.modules().modules) paths.push_back(Machine::module_path(module));
    return paths;
}

}  // namespace

// Not at the end of a step: those are many, and nothing can be late that the next stop tells. gdb without a
// program does not ask for libraries until it is told that there are some.
bool Session::modules_changed() {
    const bool step =
        last_stop.reason == rsp::StopReply::Reason::none && last_stop.signal == rsp::Signal::trap;
    if (thread_suffix || step || !run_control.views.kernel || !machine.look_for_os_once() ||
        machine.os() == nullptr)
        return false;
    if (!told_modules && !kernel_is_library()) return false;
    if (!told_modules) told_modules.emplace();
    return library_paths(*this) != *told_modules;
}

Reply Session::reported_stop() {
    run_control.put_first(last_stop.thread);
    return text(handlers::stop_reply(*this));
}

std::optional<Reply> Session::poll_stop(std::chrono::milliseconds limit) {
    if (program_wait_) return poll_program(limit);
    if (non_stop.on()) return poll_non_stop(limit);
    if (held_stop) {
        running = false;
        general_thread.reset();
        last_stop = *std::exchange(held_stop, std::nullopt);
        return reported_stop();
    }
    auto stop = run_control.poll(limit);
    Reply reply;
    if (run_control.conditions.has_output())
        reply.before = console_output(run_control.conditions.take_output(), options.packet_size);
    if (stop && !*stop) {
        reply.kind = Reply::Kind::running;
        return reply.before.empty() ? std::nullopt : std::optional{std::move(reply)};
    }
    running = false;
    general_thread.reset();
    const auto tell = [&](const std::string& line) {
        std::ranges::move(console_output("exogdb: " + line + "\n", options.packet_size),
                          std::back_inserter(reply.before));
    };
    bool exited = false;
    if (stop) {
        last_stop = **stop;
        exited = last_stop.exited;
        const bool paused = !exited && last_stop.signal == rsp::Signal::interrupt;
        const std::string note = paused ? machine.target().condition() : last_stop.note;
        if (!note.empty()) tell(note);
    } else {
        const std::string what = "running the guest: " + stop.error().message;
        spdlog::error("{}", what);
        // Console output, since a stop reply has no place for it.
        tell(what);
        exited = stop.error().code == Errc::target_gone;
        last_stop = {};
    }
    if (exited && last_stop.process != kernel_pid) {
        Reply ended = process_exited(last_stop);
        std::ranges::move(ended.before, std::back_inserter(reply.before));
        reply.payload = std::move(ended.payload);
        return reply;
    }
    if (exited) {
        Reply last = exit_reply();
        last.before = std::move(reply.before);
        return last;
    }
    if (!stop) {
        const auto any = run_control.resumed_thread();
        last_stop.thread = any.tid;
        last_stop.process = any.pid;
    }
    const bool told = last_stop.reason == rsp::StopReply::Reason::library;
    if (stop && !told && modules_changed()) {
        held_stop = std::exchange(last_stop, {.thread = last_stop.thread,
                                              .reason = rsp::StopReply::Reason::library,
                                              .process = last_stop.process});
    }
    reply.payload = reported_stop().payload;
    return reply;
}

Result<const Thread*> Session::thread(const std::optional<rsp::ThreadId>& id) {
    if (non_stop.on() && !non_stop.stands()) return thread_while_running(id);
    const bool current = !id || id->tid == rsp::ThreadId::any || id->tid == rsp::ThreadId::all;
    const auto pid = id && id->pid > 0 ? id->pid : current_process();
    if (pid != kernel_pid) return process_thread(pid, current ? rsp::ThreadId::any : id->tid);
    if (!run_control.views.kernel) return fail(Errc::no_such_thread, "the kernel is not attached");
    const Thread* known = run_control.known(current ? last_stop.thread : id->tid);
    if (known != nullptr && (!id || ThreadMap::names_process(id->pid))) return known;
    ThreadMap& map = run_control.threads();
    const Thread* found = current ? map.find(last_stop.thread) : map.match(*id);
    if (found == nullptr && current && !map.threads().empty()) found = &map.threads().front();
    if (found == nullptr || (id && map.match({id->pid, found->tid}) == nullptr)) {
        return fail(Errc::no_such_thread, "no such thread: " + std::to_string(id ? id->tid : 0));
    }
    return found;
}

Result<const Thread*> Session::general() {
    if (general_thread) {
        if (general_thread->pid != kernel_pid) {
            if (const auto found = process_thread(general_thread->pid, general_thread->tid)) return found;
        } else if (const Thread* found = find(general_thread->tid)) {
            return found;
        }
    }
    return thread(std::nullopt);
}

namespace {

// The task is there, but what it saved is not: a zombie whose stack is freed, a frame that makes no sense.
// All its registers are unavailable then. An error would end gdb 13's `info threads` at that thread.
bool registers_are_lost(Errc code) {
    return code == Errc::bad_data || code == Errc::bad_address || code == Errc::unsupported;
}

}  // namespace

const TraceFrame* Session::selected_frame() const {
    const auto& frames = run_control.tracepoints.buffer().frames();
    return trace_frame && *trace_frame < frames.size() ? &frames[*trace_frame] : nullptr;
}

Result<RegisterSet> Session::registers(const Thread& thread) {
    if (non_stop.on()) CHECK_OK(non_stop.check_stopped(thread.tid));
    if (!thread.of_kernel()) return user_registers(thread, false);
    if (thread.vcpu) return *TRY(machine.vcpu_registers(*thread.vcpu));
    if (thread.task && machine.os() != nullptr) {
        auto saved = machine.os()->saved_registers(*thread.task);
        if (saved || !registers_are_lost(saved.error().code)) return saved;
        spdlog::debug("{}", saved.error().message);
        return RegisterSet{machine.layout()};
    }
    return fail(Errc::no_such_thread, "thread " + std::to_string(thread.tid) + " has no registers");
}

Result<RegisterSet> Session::all_registers(const Thread& thread) {
    if (!thread.of_kernel()) return user_registers(thread, true);
    auto quick = registers(thread);
    if (!quick || !thread.vcpu) return quick;
    return *TRY(machine.all_vcpu_registers(*thread.vcpu));
}

Result<AddressSpace*> Session::readable_space(const Thread& thread) {
    if (thread.of_kernel() || machine.os() == nullptr) return space(thread);
    return machine.readable_space(*thread.task);
}

Result<AddressSpace*> Session::space(const Thread& thread) {
    if (!thread.of_kernel() && machine.os() != nullptr) return TRY(machine.process_space(*thread.task));
    if (thread.task && machine.os() != nullptr) return machine.task_space(*thread.task);
    if (thread.vcpu) return machine.vcpu_space(*thread.vcpu);
    return fail(Errc::no_such_thread, "thread " + std::to_string(thread.tid) + " has no address space");
}

}  // namespace exo::stub
