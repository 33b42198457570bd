// Packets that only lldb sends (lldb/docs/resources/lldbgdbremote).
#include <algorithm>

#include "rsp/hex.h"
#include "rsp/stop_reply.h"
#include "stub/handlers/handlers.h"

namespace exo::stub::handlers {
namespace {

std::string_view reason_of(const RunControl::Stop& stop) {
    using Reason = rsp::StopReply::Reason;
    switch (stop.reason) {
        case Reason::swbreak:
        case Reason::hwbreak: return "breakpoint";
        case Reason::watch:
        case Reason::rwatch:
        case Reason::awatch: return "watchpoint";
        default: return stop.signal == rsp::Signal::trap ? "trace" : "signal";
    }
}

// {"tid":1,"name":"init","reason":"trace","signal":5}
std::string thread_object(Session& session, const Thread& thread, bool with_registers) {
    std::string json = "{\"tid\":" + std::to_string(thread.tid) + ",\"name\":\"";
    rsp::append_json(json, thread.name);
    json += '"';
    if (thread.tid == session.last_stop.thread) {
        json.append(",\"reason\":\"").append(reason_of(session.last_stop)).append("\",\"signal\":");
        json += std::to_string(static_cast<int>(session.last_stop.signal));
    }
    const auto registers = with_registers ? session.registers(thread)
                                          : Result<RegisterSet>{fail(Errc::unsupported, "not wanted")};
    if (registers) {
        json += ",\"registers\":{";
        const char* comma = "";
        for (const RegisterNumber number : registers->layout().expedited) {
            if (!registers->available(number)) continue;
            json.append(comma).append("\"").append(std::to_string(number)).append("\":\"");
            append_register(json, *registers, number);
            json += '"';
            comma = ",";
        }
        json += '}';
    }
    return json += '}';
}

}  // namespace

Result<Reply> threads_info(Session& session, std::string_view /*arguments*/) {
    std::string json = "[";
    session.for_each_thread([&](const Thread& thread) {
        if (json.size() > 1) json += ',';
        json += thread_object(session, thread, true);
    });
    return text(json += ']');
}

// T00 for a thread that has not itself stopped.
Result<Reply> thread_stop_info(Session& session, std::string_view arguments) {
    const auto id = rsp::parse_thread_id(arguments);
    if (!id) return fail(Errc::bad_request, "malformed thread-id");
    const Thread* thread = TRY(session.thread(id));
    if (thread->tid == session.last_stop.thread) return text(stop_reply(session));
    rsp::StopReply reply{.signal = rsp::Signal::none, .thread = thread->id()};
    append_expedited(reply, session, *thread);
    // A guest names its tasks: a plain `name:` would let it write keys of its own.
    reply.extra = "hexname:" + rsp::to_hex(thread->name) + ";";
    return text(rsp::to_string(reply, session.client.multiprocess));
}

// threads, thread-pcs and jstopinfo: with them lldb needs no qThreadStopInfo for each thread at each stop.
std::string lldb_stop_keys(Session& session) {
    std::string ids;
    std::string pcs;
    session.for_each_thread([&](const Thread& thread) {
        const auto registers = session.registers(thread);
        const auto value = registers ? registers->get(registers->layout().pc) : std::nullopt;
        if (!ids.empty()) {
            ids += ',';
            pcs += ',';
        }
        rsp::append_thread_id(ids, thread.id(), session.client.multiprocess);
        rsp::append_hex_number(pcs, value.value_or(0));
    });
    std::string keys = "threads:" + ids + ";thread-pcs:" + pcs + ";jstopinfo:";
    const Thread* stopped = session.run_control.threads().find(session.last_stop.thread);
    const std::string json = stopped != nullptr ? "[" + thread_object(session, *stopped, false) + "]" : "[]";
    keys += rsp::to_hex(json) + ";reason:";
    return keys.append(reason_of(session.last_stop)).append(";");
}

// The debug registers of an x86 CPU.
Result<Reply> watchpoint_support(Session& /*session*/, std::string_view /*arguments*/) {
    return text("num:4;");
}

// qMemoryRegionInfo   (a probe)   or qMemoryRegionInfo:ADDR
Result<Reply> memory_region_info(Session& session, std::string_view arguments) {
    if (arguments.empty()) return ok();
    const auto address = arguments.front() == ':' ? rsp::parse_hex_number(arguments.substr(1)) : std::nullopt;
    if (!address) return fail(Errc::bad_request, "malformed address");
    AddressSpace* space = TRY(session.space(*TRY(session.general())));
    const MappedRange range = mapped_range(*space, VirtualAddress{*address});
    std::string reply = "start:";
    rsp::append_hex_number(reply, raw(range.start));
    reply += ";size:";
    rsp::append_hex_number(reply, range.size);
    reply += ";";
    if (range.mapping) {
        reply += "permissions:r";
        if (range.mapping->writable) reply += 'w';
        if (range.mapping->executable) reply += 'x';
        reply += ";";
    }
    return text(std::move(reply));
}

}  // namespace exo::stub::handlers
