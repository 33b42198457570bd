// Threads: lists, names, selection.
#include <algorithm>

#include "backends/arch/x86_64.h"
#include "os-awareness/thread_locals.h"
#include "rsp/hex.h"
#include "rsp/stop_reply.h"
#include "stub/guest_files.h"
#include "stub/handlers/handlers.h"
#include "stub/osdata.h"
#include "stub/tables.h"

namespace exo::stub::handlers {
namespace {

// Terse: gdb reads it in slices of 4096 bytes at every stop.
std::string threads_xml(Session& session) {
    std::string xml = "<threads>";
    session.for_each_thread([&](const Thread& thread) {
        xml += "<thread id=\"";
        rsp::append_thread_id(xml, thread.id(), session.client.multiprocess);
        xml += "\" name=\"";
        rsp::append_xml(xml, thread.name);
        xml += "\"";
        if (thread.task || thread.vcpu) {
            xml += " core=\"" + std::to_string(thread.task ? thread.task->cpu : *thread.vcpu) + "\"";
        }
        xml += ">";
        rsp::append_xml(xml, extra_info(thread, session.machine.os()));
        xml += "</thread>";
    });
    return xml += "</threads>";
}

}  // namespace

// qC: follows the last stop or attach; gdb believes it after vAttach, whatever the stop reply said.
Result<Reply> current_thread(Session& session, std::string_view /*arguments*/) {
    std::string reply = "QC";
    rsp::append_thread_id(reply, TRY(session.general())->id(), session.client.multiprocess);
    return text(std::move(reply));
}

Result<Reply> first_threads(Session& session, std::string_view /*arguments*/) {
    std::string reply = "m";
    session.for_each_thread([&](const Thread& thread) {
        if (reply.size() > 1) reply += ',';
        rsp::append_thread_id(reply, thread.id(), session.client.multiprocess);
    });
    return text(reply.size() > 1 ? std::move(reply) : "l");
}

// The first packet had them all: 1 MiB holds 60,000 ids.
Result<Reply> more_threads(Session& /*session*/, std::string_view /*arguments*/) { return text("l"); }

Result<Reply> thread_extra_info(Session& session, std::string_view arguments) {
    const auto id = rsp::parse_thread_id(arguments);
    if (!id) return fail(Errc::bad_request, "malformed thread-id");
    const Thread* thread = TRY(session.thread(id));
    std::string info = thread->name;
    if (const std::string extra = extra_info(*thread, session.machine.os()); !extra.empty()) {
        info += ": " + extra;
    }
    return text(rsp::to_hex(info));
}

Result<Reply> thread_alive(Session& session, std::string_view arguments) {
    const auto id = rsp::parse_thread_id(arguments);
    if (!id) return fail(Errc::bad_request, "malformed thread-id");
    CHECK_OK(session.thread(id));
    return ok();
}

// gdb asks for each variable that is thread-local (remote.c, get_thread_local_address).
Result<Reply> thread_local_address(Session& session, const rsp::ThreadLocal& request) {
    const Thread& thread = *TRY(session.thread(request.thread));
    if (thread.of_kernel() || session.machine.os() == nullptr)
        return fail(Errc::unsupported, "thread-local variables are those of processes");
    if (session.machine.is_32_bit(*thread.task))
        return fail(Errc::unsupported, "thread-local variables of 32-bit programs are not found");
    const auto thread_pointer = TRY(session.all_registers(thread)).get(x86::fs_base);
    if (!thread_pointer) return fail(Errc::not_found, "fs_base of this thread is not known");
    const auto auxv = TRY(auxv_of(session.machine, *thread.task));
    const auto address = TRY(
        os::thread_local_address(*TRY(session.readable_space(thread)), auxv, VirtualAddress{*thread_pointer},
                                 {.link_map = VirtualAddress{request.link_map}, .offset = request.offset}));
    std::string digits;
    rsp::append_hex_number(digits, raw(address));
    return text(std::move(digits));
}

// Hg selects the registers and the address space of g, m and Z too; O(1), since gdb sends one before nearly
// every packet.
Result<Reply> select_general_thread(Session& session, std::string_view arguments) {
    const auto id = rsp::parse_thread_id(arguments);
    if (!id) return fail(Errc::bad_request, "malformed thread-id");
    const auto found = session.thread(id);
    // gdb keeps the last of the threads that it knew (remote_target::update_thread_list), and an error would
    // end its `info threads`.
    if (!found && session.threads_replaced) {
        session.general_thread.reset();
        return ok();
    }
    session.general_thread = TRY(found)->id();
    return ok();
}

Result<Reply> select_resumed_thread(Session& session, std::string_view arguments) {
    const auto id = rsp::parse_thread_id(arguments);
    if (!id) return fail(Errc::bad_request, "malformed thread-id");
    if (id->tid > 0) CHECK_OK(session.thread(id));
    session.continue_thread = *id;
    return ok();
}

Result<Reply> transfer_threads(Session& session, const rsp::TransferRead& request) {
    if (request.offset == 0) session.threads_xml = threads_xml(session);
    return text(rsp::xfer_slice(session.threads_xml, request.offset, request.length));
}

// Annex "" is the list of types.
Result<Reply> transfer_osdata(Session& session, const rsp::TransferRead& request) {
    if (request.offset == 0) {
        if (!session.attached) session.run_control.forget_threads();
        if (request.annex.empty() || request.annex == "types") {
            session.osdata_xml = osdata_types();
        } else if (request.annex == "processes" || request.annex == "threads") {
            session.osdata_xml =
                osdata_tasks(session.machine, session.run_control.threads(), request.annex == "processes");
        } else if (request.annex == "files" || request.annex == "modules") {
            CHECK_OK(session.machine.look_once());
            session.osdata_xml =
                request.annex == "files" ? osdata_files(session.machine) : osdata_modules(session.machine);
        } else {
            return text("l");
        }
    }
    return text(rsp::xfer_slice(session.osdata_xml, request.offset, request.length));
}

}  // namespace exo::stub::handlers
