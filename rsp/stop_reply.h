// Stop replies, as values and as text (GDB manual, "Stop Reply Packets").
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rsp/thread_id.h"

namespace exo::rsp {

// gdb's numbers (include/gdb/signals.def), which are not Linux'.
enum class Signal : std::uint8_t { none = 0, interrupt = 2, trap = 5 };

struct StopReply {
    enum class Kind : std::uint8_t { stopped, exited, killed, thread_exited, no_resumed };
    enum class Reason : std::uint8_t {
        none,
        swbreak,
        hwbreak,
        watch,
        rwatch,
        awatch,
        library,
        fork,   // `forked` is the child
        vfork,  // it uses the parent's memory until vforkdone
        vforkdone,
        exec,           // of `program`
        syscall_entry,  // of `system_call`
        syscall_return,
    };
    Kind kind = Kind::stopped;
    Signal signal = Signal::trap;
    Reason reason = Reason::none;
    std::uint64_t watch_address = 0;  // of watch, rwatch, awatch
    ThreadId thread;
    ThreadId forked;
    std::string program;            // its path
    std::uint32_t system_call = 0;  // its number
    std::optional<std::uint32_t> core;
    // Register number and its value in hex, guest byte order. Numbers are printed with two digits at least:
    // lldb ignores shorter keys.
    std::vector<std::pair<std::uint16_t, std::string>> registers;
    // Further key:value; pairs, ready to print (lldb's threads:, thread-pcs:, jstopinfo:, name:).
    std::string extra;
    std::uint8_t exit_status = 0;  // of killed: gdb's number of the signal

    // Exited or killed, as wait(2) tells it in its `status`.
    void set_wait_status(std::uint32_t status);
};

// "T05thread:p1.2;core:1;06:…;swbreak:;" or "W00;process:1" or "w00;p1.2" or "N".
std::string to_string(const StopReply& reply, bool multiprocess);

// One slice of an object for qXfer: "m…" more, "l…" last; "l" alone past the end.
std::string xfer_slice(std::string_view object, std::uint64_t offset, std::uint64_t length);

// Text as XML attribute or content: & < > " ' and control characters.
void append_xml(std::string& out, std::string_view text);
// Text as the inside of a JSON string.
void append_json(std::string& out, std::string_view text);

// CRC-32 as qCRC and compare-sections want it: polynomial 0x04c11db7, start value 0xffffffff, not
// reflected, no final inversion (gdb/target-memory / libiberty xcrc32).
std::uint32_t crc32(std::uint32_t crc, std::string_view bytes);

}  // namespace exo::rsp
