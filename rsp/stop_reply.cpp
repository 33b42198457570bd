#include "rsp/stop_reply.h"

#include <algorithm>
#include <array>

#include "rsp/hex.h"

namespace exo::rsp {
namespace {

void append_two_digits(std::string& out, std::uint64_t number) {
    if (number < 0x10) out += '0';
    append_hex_number(out, number);
}

std::string_view name_of(StopReply::Reason reason) {
    using Reason = StopReply::Reason;
    switch (reason) {
        case Reason::none: return "";
        case Reason::swbreak: return "swbreak";
        case Reason::hwbreak: return "hwbreak";
        case Reason::watch: return "watch";
        case Reason::rwatch: return "rwatch";
        case Reason::awatch: return "awatch";
        case Reason::library: return "library";
        case Reason::fork: return "fork";
        case Reason::vfork: return "vfork";
        case Reason::vforkdone: return "vforkdone";
        case Reason::exec: return "exec";
        case Reason::syscall_entry: return "syscall_entry";
        case Reason::syscall_return: return "syscall_return";
    }
    return "";
}

void append_reason(std::string& out, const StopReply& reply, bool multiprocess) {
    using Reason = StopReply::Reason;
    const std::string_view name = name_of(reply.reason);
    if (name.empty()) return;
    out += name;
    out += ':';
    if (reply.reason == Reason::watch || reply.reason == Reason::rwatch || reply.reason == Reason::awatch) {
        append_hex_number(out, reply.watch_address);
    }
    if (reply.reason == Reason::fork || reply.reason == Reason::vfork)
        append_thread_id(out, reply.forked, multiprocess);
    if (reply.reason == Reason::exec) out += to_hex(reply.program);
    if (reply.reason == Reason::syscall_entry || reply.reason == Reason::syscall_return)
        append_hex_number(out, reply.system_call);
    out += ';';
}

std::string stopped(const StopReply& reply, bool multiprocess) {
    std::string out = "T";
    append_two_digits(out, static_cast<std::uint8_t>(reply.signal));
    if (reply.thread.tid > 0) {  // "any" and "all" are no thread
        out += "thread:";
        append_thread_id(out, reply.thread, multiprocess);
        out += ';';
    }
    if (reply.core) {
        out += "core:";
        append_hex_number(out, *reply.core);
        out += ';';
    }
    for (const auto& [number, value] : reply.registers) {
        append_two_digits(out, number);
        out += ':';
        out += value;
        out += ';';
    }
    append_reason(out, reply, multiprocess);
    out += reply.extra;
    return out;
}

// Of each value of the top byte, what eight shifts of it out to the left leave.
constexpr std::array<std::uint32_t, 256> crc_table = [] {
    constexpr std::uint32_t polynomial = 0x04c11db7;
    std::array<std::uint32_t, 256> table{};
    for (std::uint32_t byte = 0; byte < table.size(); ++byte) {
        std::uint32_t crc = byte << 24;
        for (int bit = 0; bit < 8; ++bit) crc = crc << 1 ^ ((crc >> 31) != 0 ? polynomial : 0);
        table[byte] = crc;
    }
    return table;
}();

// gdb's numbers (include/gdb/signals.def) of Linux' signals 1 to 31 on x86 (asm-generic/signal.h).
constexpr std::uint8_t unknown_signal = 143;
constexpr std::array<std::uint8_t, 32> signals_of_linux{0,  1,  2,  3,  4,  5,   6,  10, 8,  9,  30,
                                                        11, 31, 13, 14, 15, 143, 20, 19, 17, 18, 21,
                                                        22, 16, 24, 25, 26, 27,  28, 23, 32, 12};

}  // namespace

void StopReply::set_wait_status(std::uint32_t status) {
    const auto number = status & 0x7f;
    kind = number == 0 ? Kind::exited : Kind::killed;
    exit_status = static_cast<std::uint8_t>(status >> 8);
    if (number == 0) return;
    exit_status = number < signals_of_linux.size() ? signals_of_linux[number] : unknown_signal;
}

std::string to_string(const StopReply& reply, bool multiprocess) {
    if (reply.kind == StopReply::Kind::no_resumed) return "N";
    if (reply.kind == StopReply::Kind::stopped) return stopped(reply, multiprocess);
    const bool thread = reply.kind == StopReply::Kind::thread_exited;
    std::string out = thread ? "w" : reply.kind == StopReply::Kind::killed ? "X" : "W";
    append_two_digits(out, reply.exit_status);
    if (thread) {
        out += ';';
        append_thread_id(out, reply.thread, multiprocess);
        return out;
    }
    if (multiprocess) {
        out += ";process:";
        append_hex_number(out, static_cast<std::uint64_t>(std::max<std::int64_t>(reply.thread.pid, 0)));
    }
    return out;
}

std::string xfer_slice(std::string_view object, std::uint64_t offset, std::uint64_t length) {
    if (offset >= object.size()) return "l";
    const std::string_view rest = object.substr(offset);
    // `m` with no data is a protocol error to gdb, so a length of 0 (which Transfer refuses) is taken as 1.
    const std::string_view slice = rest.substr(0, std::max<std::uint64_t>(length, 1));
    std::string out(1, slice.size() < rest.size() ? 'm' : 'l');
    out += slice;
    return out;
}

std::uint32_t crc32(std::uint32_t crc, std::string_view bytes) {
    for (const char c : bytes) crc = crc << 8 ^ crc_table[crc >> 24 ^ static_cast<unsigned char>(c)];
    return crc;
}

}  // namespace exo::rsp
