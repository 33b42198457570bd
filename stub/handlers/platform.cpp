// lldb's platform protocol (lldb/docs/resources/lldbplatformpackets), as far as it tells a guest's processes
// and leads to one of them. `platform connect` is a client that never has the guest; for `process attach`
// lldb asks it where a gdb server is, and comes there as a second client.
#include "rsp/hex.h"
#include "stub/guest_files.h"
#include "stub/handlers/handlers.h"
#include "stub/handlers/monitor_commands.h"
#include "stub/program_wait.h"

namespace exo::stub::handlers {
namespace {

constexpr std::string_view no_more = "E04";

// The file's name where the kernel's is that one, cut. Never the path: lldb would load a program of this
// machine that has the same.
std::string process_name(os::Processes* processes, const os::Task& task) {
    const auto path = processes != nullptr ? processes->proc_link(task, "exe") : fail(Errc::unsupported, "");
    const auto file = path ? path->substr(path->rfind('/') + 1) : std::string{};
    return has_name(task.comm, file) ? file : task.comm;
}

void append_number(std::string& reply, std::string_view key, std::string_view number) {
    if (!number.empty()) reply.append(key).append(":").append(number).append(";");
}

// As GDBRemoteCommunicationServerCommon::CreateProcessInfoResponse(): numbers are decimal.
std::string process_record(Machine& machine, const os::Task& task) {
    auto* processes = machine.os()->processes();
    std::string reply = "pid:" + std::to_string(task.tgid) + ";";
    const auto status =
        processes != nullptr ? processes->proc_file(task, "status") : fail(Errc::unsupported, "");
    if (status) {
        append_number(reply, "ppid", status_value(*status, "PPid"));
        append_number(reply, "uid", status_value(*status, "Uid", 0));
        append_number(reply, "euid", status_value(*status, "Uid", 1));
    }
    reply += "name:" + rsp::to_hex(process_name(processes, task));
    return reply + ";triple:" + rsp::to_hex(triple(machine.is_32_bit(task))) + ";";
}

bool is_process(const os::Task& task) {
    return !task.idle && !task.kernel_thread && task.tid == task.tgid && !has_exited(task);
}

}  // namespace

// By the program's name as the kernel has it, or its file's.
Result<Reply> first_process(Session& session, const rsp::ProcessQuery& query) {
    if (!session.attached) session.platform = true;
    CHECK_OK(session.machine.look());
    const auto* os = session.machine.os();
    if (os == nullptr) return fail(Errc::unsupported, "no operating system is recognised");
    auto* processes = session.machine.os()->processes();
    session.listed_processes.clear();
    for (const os::Task& task : os->tasks()) {
        if (!is_process(task) || (query.pid && *query.pid != task.tgid)) continue;
        if (query.matches_name(process_name(processes, task)) || query.matches_name(task.comm))
            session.listed_processes.push_back(process_record(session.machine, task));
    }
    return next_process(session, {});
}

Result<Reply> next_process(Session& session, std::string_view /*arguments*/) {
    if (session.listed_processes.empty()) return text(std::string{no_more});
    std::string record = std::move(session.listed_processes.front());
    session.listed_processes.pop_front();
    return text(std::move(record));
}

// qProcessInfoPID:PID, in decimal.
Result<Reply> process_by_pid(Session& session, std::string_view arguments) {
    const auto pid = TRY(decimal(arguments, "process id"));
    if (pid > UINT32_MAX) return fail(Errc::no_such_thread, "no process has the id " + std::to_string(pid));
    CHECK_OK(session.machine.look());
    const os::Task task = TRY(guest_task(session.machine, static_cast<std::uint32_t>(pid)));
    if (!is_process(task)) return fail(Errc::no_such_thread, std::to_string(pid) + " is no process");
    return text(process_record(session.machine, task));
}

// qLaunchGDBServer;host:HOST;   None is launched: this one takes the second client.
Result<Reply> launch_server(Session& session, std::string_view /*arguments*/) {
    if (!session.attached) session.platform = true;
    if (session.options.port == 0)
        return fail(Errc::unsupported,
                    "lldb comes back by TCP, and this server listens at none: --listen HOST:PORT");
    return text("pid:0;port:" + std::to_string(session.options.port) + ";");
}

namespace {

Result<Reply> attach_by_name(Session& session, std::string_view arguments, Session::Existing existing) {
    const auto name = rsp::text_from_hex(arguments);
    if (!name || name->empty()) return fail(Errc::bad_request, "malformed name of a process");
    if (session.platform || session.attached || session.options.threads_are_vcpus)
        return fail(Errc::busy, "a process is attached by its name where nothing is attached: serve --multi");
    CHECK_OK(session.attach_by_name(*name, existing));
    if (session.attached) return text(stop_reply(session));
    session.running = true;
    return Reply{.kind = Reply::Kind::resumed};
}

}  // namespace

// vAttachWait;NAME, in hex: what lldb is to wait for, `process attach --name NAME --waitfor`.
Result<Reply> attach_when_it_begins(Session& session, std::string_view arguments) {
    return attach_by_name(session, arguments, Session::Existing::does_not_count);
}

// vAttachOrWait;NAME: the same with `--include-existing`.
Result<Reply> attach_or_wait(Session& session, std::string_view arguments) {
    return attach_by_name(session, arguments, Session::Existing::counts);
}

}  // namespace exo::stub::handlers
