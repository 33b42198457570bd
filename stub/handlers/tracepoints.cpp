// QT… and qT…: tracepoints.
#include <algorithm>

#include "rsp/cursor.h"
#include "rsp/hex.h"
#include "stub/handlers/handlers.h"

namespace exo::stub::handlers {
namespace {

void append_number(std::string& text, std::uint64_t value) { rsp::append_hex_number(text, value); }

std::string number(std::uint64_t value) {
    std::string text;
    append_number(text, value);
    return text;
}

// One line of an upload for each part of a tracepoint (gdb/tracepoint.c, parse_tracepoint_definition()).
std::vector<std::string> uploads(const Tracepoints::Id& id, const Tracepoint& tracepoint) {
    const std::string where = number(id.first) + ":" + number(raw(id.second)) + ":";
    std::vector<std::string> lines;
    std::string head = "T" + where;
    head.append(tracepoint.head.enabled ? "E" : "D").append(":0:").append(number(tracepoint.head.pass_count));
    if (tracepoint.head.condition) head += ":" + tracepoint.head.condition_text;
    lines.push_back(std::move(head));
    for (const auto& action : tracepoint.actions) {
        lines.push_back("A" + where + std::visit([](const auto& a) { return a.text; }, action));
    }
    for (const auto& source : tracepoint.sources) lines.emplace_back("Z").append(where).append(source);
    lines.push_back("V" + where + number(tracepoint.hits) + ":" + number(tracepoint.usage));
    return lines;
}

Reply next_upload(Session& session) {
    if (session.uploads.empty()) return text("l");
    Reply reply = text(std::move(session.uploads.front()));
    session.uploads.pop_front();
    return reply;
}

bool selects(const rsp::SelectTraceFrame& request, const TraceFrame& frame) {
    using By = rsp::SelectTraceFrame::By;
    const std::uint64_t pc = raw(frame.pc);
    switch (request.by) {
        case By::pc: return pc == request.first;
        case By::tracepoint: return frame.tracepoint == request.first;
        case By::range: return pc >= request.first && pc <= request.last;
        case By::outside: return pc < request.first || pc > request.last;
        default: return false;
    }
}

// By number, or the next one after that which is selected.
std::optional<std::size_t> find_frame(const Session& session, const rsp::SelectTraceFrame& request) {
    const auto& frames = session.run_control.tracepoints.buffer().frames();
    if (request.by == rsp::SelectTraceFrame::By::number)
        return request.first < frames.size() ? std::optional{static_cast<std::size_t>(request.first)}
                                             : std::nullopt;
    for (std::size_t i = session.trace_frame ? *session.trace_frame + 1 : 0; i < frames.size(); ++i) {
        if (selects(request, frames[i])) return i;
    }
    return std::nullopt;
}

}  // namespace

Result<Reply> trace_init(Session& session, std::string_view /*arguments*/) {
    session.trace_frame.reset();
    session.run_control.tracepoints.clear();
    return ok();
}

Result<Reply> define_tracepoint(Session& session, std::string_view arguments) {
    auto request = rsp::DefineTracepoint::parse(arguments);
    if (auto* refusal = std::get_if<std::string>(&request))
        return fail(Errc::unsupported, std::move(*refusal));
    CHECK_OK(session.run_control.tracepoints.define(std::get<rsp::DefineTracepoint>(std::move(request))));
    return ok();
}

Result<Reply> define_tracepoint_source(Session& session, const rsp::TracepointSource& request) {
    CHECK_OK(session.run_control.tracepoints.add_source(request));
    return ok();
}

Result<Reply> define_trace_variable(Session& session, const rsp::DefineTraceVariable& request) {
    CHECK_OK(session.run_control.tracepoints.define_variable(request));
    return ok();
}

Result<Reply> enable_tracepoint(Session& session, const rsp::TracepointId& request) {
    CHECK_OK(session.run_control.tracepoints.enable(request, true));
    return ok();
}

Result<Reply> disable_tracepoint(Session& session, const rsp::TracepointId& request) {
    CHECK_OK(session.run_control.tracepoints.enable(request, false));
    return ok();
}

// Memory that reads through a selected frame, since the program does not write it.
Result<Reply> trace_read_only(Session& session, const rsp::ReadOnlyRanges& request) {
    session.run_control.tracepoints.read_only() = request.ranges;
    return ok();
}

Result<Reply> start_trace(Session& session, std::string_view /*arguments*/) {
    session.trace_frame.reset();
    CHECK_OK(session.run_control.tracepoints.start());
    return ok();
}

Result<Reply> stop_trace(Session& session, std::string_view /*arguments*/) {
    if (session.run_control.tracepoints.status().running) session.run_control.tracepoints.stop("tstop::0");
    return ok();
}

// The trace is the client's: nobody could tell whose it is once the client has gone.
Result<Reply> disconnected_tracing(Session& /*session*/, std::string_view arguments) {
    if (arguments == "0") return ok();
    return fail(Errc::unsupported, "a trace ends with its client");
}

// QTBuffer:circular:0   QTBuffer:size:-1
Result<Reply> trace_buffer_option(Session& session, std::string_view arguments) {
    auto& tracepoints = session.run_control.tracepoints;
    if (tracepoints.status().running) return fail(Errc::busy, "a trace runs");
    rsp::Cursor cursor{arguments};
    if (cursor.take("circular:")) {
        if (cursor.rest() != "0" && cursor.rest() != "1")
            return fail(Errc::bad_request, "circular is 0 or 1");
        tracepoints.buffer().set_circular(cursor.rest() == "1");
        return ok();
    }
    if (!cursor.take("size:")) return fail(Errc::bad_request, "no such option of the trace buffer");
    session.trace_frame.reset();
    const auto size = rsp::parse_hex_number(cursor.rest());
    if (!size && cursor.rest() != "-1") return fail(Errc::bad_request, "malformed size");
    if (size.value_or(0) > TraceBuffer::largest_size)
        return fail(Errc::bad_request, "the trace buffer has at most 256 MiB");
    tracepoints.buffer().set_size(size.value_or(TraceBuffer::default_size));
    return ok();
}

// QTNotes:KEY:hex;…   gdb tells who traces and why, and reads it again in qTStatus.
Result<Reply> trace_notes(Session& session, std::string_view arguments) {
    auto& status = session.run_control.tracepoints.status();
    rsp::Cursor cursor{arguments};
    while (!cursor.done()) {
        const auto key = cursor.take_until(":");
        cursor.take(':');
        auto value = rsp::text_from_hex(cursor.take_until(";"));
        cursor.take(';');
        if (!value) return fail(Errc::bad_request, "malformed notes");
        if (key == "user") {
            status.user = *std::move(value);
        } else if (key == "notes") {
            status.notes = *std::move(value);
        } else if (key == "tstop" && !status.running) {
            status.reason = "tstop:" + rsp::to_hex(*value) + ":0";
        }
    }
    return ok();
}

Result<Reply> trace_status(Session& session, std::string_view /*arguments*/) {
    auto& tracepoints = session.run_control.tracepoints;
    const auto& status = tracepoints.status();
    const auto& buffer = tracepoints.buffer();
    std::string reply = status.running ? "T1" : "T0;" + status.reason;
    const auto add = [&](std::string_view key, std::uint64_t value) {
        reply.append(";").append(key).append(":");
        append_number(reply, value);
    };
    add("tframes", buffer.frames().size());
    add("tcreated", buffer.created());
    add("tfree", buffer.size() - buffer.used());
    add("tsize", buffer.size());
    add("circular", buffer.circular() ? 1 : 0);
    add("disconn", 0);
    add("starttime", status.started);
    add("stoptime", status.stopped);
    reply += ";username:" + rsp::to_hex(status.user) + ";notes:" +
             rsp::to_hex(status.notes);  // gdb 13 takes a last ';' for the beginning of one more key
    return text(std::move(reply));
}

Result<Reply> tracepoint_status(Session& session, const rsp::TracepointId& request) {
    const auto& all = session.run_control.tracepoints.all();
    const auto it = all.find({request.number, VirtualAddress{request.address}});
    if (it == all.end()) return fail(Errc::not_found, "no such tracepoint");
    return text("V" + number(it->second.hits) + ":" + number(it->second.usage));
}

Result<Reply> trace_variable(Session& session, const rsp::TraceNumber& request) {
    auto& tracepoints = session.run_control.tracepoints;
    if (session.trace_frame) {
        const auto& collected = tracepoints.buffer().frames().at(*session.trace_frame).variables;
        const auto it = collected.find(request.number);
        return text(it == collected.end() ? "U" : "V" + number(it->second));
    }
    const auto it = tracepoints.variables().find(request.number);
    return text(it == tracepoints.variables().end() ? "U" : "V" + number(it->second.value));
}

Result<Reply> first_tracepoint(Session& session, std::string_view /*arguments*/) {
    session.uploads.clear();
    for (const auto& [id, tracepoint] : session.run_control.tracepoints.all())
        std::ranges::move(uploads(id, tracepoint), std::back_inserter(session.uploads));
    return next_upload(session);
}

Result<Reply> first_trace_variable(Session& session, std::string_view /*arguments*/) {
    session.uploads.clear();
    for (const auto& [id, variable] : session.run_control.tracepoints.variables()) {
        session.uploads.push_back(number(id) + ":" + number(variable.initial) + ":" +
                                  (variable.builtin ? "1:" : "0:") + rsp::to_hex(variable.name));
    }
    return next_upload(session);
}

Result<Reply> more_uploads(Session& session, std::string_view /*arguments*/) { return next_upload(session); }

// F NUMBER T TRACEPOINT; F-1: there is none such, and the selection stays.
Result<Reply> select_trace_frame(Session& session, const rsp::SelectTraceFrame& request) {
    if (request.by == rsp::SelectTraceFrame::By::none) {
        session.trace_frame.reset();
        return ok();
    }
    const auto found = find_frame(session, request);
    if (!found) return text("F-1");
    session.trace_frame = found;
    const auto& frame = session.run_control.tracepoints.buffer().frames().at(*found);
    return text("F" + number(*found) + "T" + number(frame.tracepoint));
}

// Hex, or `l` behind the end.
Result<Reply> read_trace_buffer(Session& session, const rsp::ReadTraceBuffer& request) {
    const std::string_view file = session.run_control.tracepoints.buffer().as_file();
    if (request.offset >= file.size()) return text("l");
    const std::size_t most = std::min<std::uint64_t>(request.length, session.options.packet_size / 2);
    return text(rsp::to_hex(file.substr(request.offset, most)));
}

Result<Reply> transfer_traceframe_info(Session& session, const rsp::TransferRead& request) {
    if (!session.trace_frame) return fail(Errc::not_found, "no trace frame is selected");
    const auto& frame = session.run_control.tracepoints.buffer().frames().at(*session.trace_frame);
    std::string xml = "<traceframe-info>";
    for (const auto& block : frame.memory) {
        xml +=
            "<memory start=\"" + hex(block.address) + "\" length=\"0x" + number(block.bytes.size()) + "\"/>";
    }
    for (const auto& [id, value] : frame.variables) xml += "<tvar id=\"0x" + number(id) + "\"/>";
    return text(rsp::xfer_slice(xml + "</traceframe-info>", request.offset, request.length));
}

}  // namespace exo::stub::handlers
