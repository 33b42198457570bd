// The connection: features, modes, attach and detach.
#include <spdlog/spdlog.h>

#include "backends/arch/i386.h"
#include "rsp/hex.h"
#include "stub/handlers/handlers.h"
#include "stub/packet.h"

namespace exo::stub::handlers {
namespace {

// lldb gives up on a packet after 5 s unless told otherwise; a first look at a large guest may take longer.
constexpr int lldb_timeout_seconds = 30;

// Of D and vKill. The kernel counts as attached also when nothing is.
Result<void> detach_one(Session& session, std::string_view pid_text, std::string_view malformed) {
    const auto pid = rsp::parse_hex_number(pid_text);
    if (!pid || *pid > INT64_MAX) return fail(Errc::bad_request, std::string{malformed});
    return session.detach_process(static_cast<std::int64_t>(*pid));
}

}  // namespace

// qSupported:FEATURE;…   Each row's own feature, and those that are nobody's packet. Never a qXfer object
// that would be answered by an empty packet: gdb then refuses all memory reads (`memory-map`) or does not
// connect at all (`auxv`).
Result<Reply> supported(Session& session, std::string_view arguments) {
    session.client = rsp::ClientFeatures::parse(arguments);
    std::string reply = "PacketSize=";
    rsp::append_hex_number(reply, session.options.packet_size);
    if (session.client.multiprocess) reply += ";multiprocess+";
    // gdb 16 reads with `x` when told so. Not told to lldb, which then probes for its own older form.
    if (session.client.binary_upload) reply += ";binary-upload+";
    if (session.client.error_message) reply += ";error-message+";
    if (session.told_of_processes().forks) reply += ";fork-events+";
    if (session.told_of_processes().vforks) reply += ";vfork-events+";
    if (session.told_of_processes().execs) reply += ";exec-events+";
    for (const Packet& packet : packet_table()) {
        if (packet.feature.empty() || (packet.available != nullptr && !packet.available(session))) continue;
        reply.append(";").append(packet.feature);
    }
    return text(std::move(reply));
}

Result<Reply> start_no_ack(Session& /*session*/, std::string_view /*arguments*/) {
    Reply reply = ok();
    reply.ends_acks = true;
    return reply;
}

// Anything but the empty reply ends gdb's connect with that text shown (gdb/remote.c start_remote_1): the one
// place to tell it why the guest could not be stopped. An error reply to `?` makes gdb 13 hang.
Result<Reply> empty(Session& session, std::string_view /*arguments*/) {
    if (session.open_error && !session.attached) return fail(*session.open_error);
    return unknown_packet();
}

Result<Reply> just_ok(Session& /*session*/, std::string_view /*arguments*/) { return ok(); }

// 1: attached, not created. gdb then detaches on quit; at 0 it kills.
Result<Reply> is_attached(Session& /*session*/, std::string_view /*arguments*/) { return text("1"); }

// gdb relocates all of a vmlinux by this at connect. Text, Data and Bss must be equal here: a kernel moves as
// a whole.
Result<Reply> offsets(Session& session, std::string_view /*arguments*/) {
    if (session.current_process() != kernel_pid) return unknown_packet();  // a program of the guest's
    std::string slide;
    rsp::append_hex_number(slide, session.machine.os()->slide());
    session.program_generation = session.machine.os_generation();
    return text("Text=" + slide + ";Data=" + slide + ";Bss=" + slide);
}

Result<Reply> thread_suffix_supported(Session& session, std::string_view /*arguments*/) {
    session.thread_suffix = true;
    return ok();
}

Result<Reply> list_threads_in_stop_reply(Session& session, std::string_view /*arguments*/) {
    session.list_threads_in_stop = true;
    return ok();
}

Result<Reply> enable_error_strings(Session& session, std::string_view /*arguments*/) {
    session.error_strings = true;
    return ok();
}

Result<Reply> host_info(Session& /*session*/, std::string_view /*arguments*/) {
    return text("triple:" + rsp::to_hex(triple()) +
                ";ptrsize:8;endian:little;watchpoint_exceptions_received:after;default_packet_timeout:" +
                std::to_string(lldb_timeout_seconds) + ";vm-page-size:4096;");
}

// lldb looks a pid up on its own host and loads that program if it has none: the kernel's is none that a host
// can have. It takes no stop of another process than this (ProcessGDBRemote::SetThreadStopInfo).
Result<Reply> process_info(Session& session, std::string_view /*arguments*/) {
    const Views& views = session.run_control.views;
    const bool known = views.kernel || views.processes.empty();
    std::string reply = "pid:";
    rsp::append_hex_number(reply, static_cast<std::uint64_t>(known ? kernel_pid : *views.processes.begin()));
    const bool narrow = &session.layout() == &i386::process_layout();
    return text(reply + ";triple:" + rsp::to_hex(triple(narrow)) +
                ";ostype:linux;endian:little;ptrsize:" + (narrow ? "4;" : "8;"));
}

Result<Reply> server_version(Session& /*session*/, std::string_view /*arguments*/) {
    return text("name:exogdb;version:" EXOGDB_VERSION ";");
}

// D   D;PID   lldb's D1 (stay stopped) is not offered.
Result<Reply> detach(Session& session, std::string_view arguments) {
    if (!arguments.empty()) {
        const std::string_view pid = arguments.front() == ';' ? arguments.substr(1) : std::string_view{};
        CHECK_OK(detach_one(session, pid, "malformed detach request"));
        return ok();
    }
    CHECK_OK(session.close());
    return ok();
}

// k: the guest is the user's; a debugger's kill leaves it running.
Result<Reply> kill(Session& session, std::string_view /*arguments*/) {
    if (auto closed = session.close(); !closed) spdlog::warn("detaching: {}", closed.error().message);
    return Reply{.kind = Reply::Kind::silent, .closes = true};
}

// vKill;PID
Result<Reply> kill_process(Session& session, std::string_view arguments) {
    CHECK_OK(detach_one(session, arguments, "malformed process id"));
    return ok();
}

// vAttach;PID
Result<Reply> attach(Session& session, std::string_view arguments) {
    const auto parsed = rsp::parse_hex_number(arguments);
    if (!parsed || *parsed > INT64_MAX) return fail(Errc::bad_request, "malformed process id");
    const auto pid = static_cast<std::int64_t>(*parsed);
    if (session.platform) return fail(Errc::busy, "this connection is lldb's platform, which has no guest");
    if (!session.attached && pid != kernel_pid) {
        CHECK_OK(session.attach_only(pid));
    } else if (!session.attached) {
        auto opened = session.attach_guest();
        session.open_error.reset();  // told here
        CHECK_OK(std::move(opened));
    } else if (pid != kernel_pid) {
        CHECK_OK(session.attach_process(pid));
    } else {
        if (session.run_control.views.kernel) return fail(Errc::busy, "the kernel is attached already");
        CHECK_OK(session.attach_kernel());
    }
    if (session.non_stop.on()) {
        session.non_stop.tell_again();
        return ok();
    }
    return text(stop_reply(session));
}

Result<Reply> run_program(Session& /*session*/, std::string_view /*arguments*/) {
    return fail(Errc::unsupported, "programs are started inside the guest, not by the debugger");
}

}  // namespace exo::stub::handlers
