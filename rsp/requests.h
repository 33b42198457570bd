// One type for each packet that takes arguments, with its parser. parse() gets what follows the wire name
// and returns nothing when that is malformed (the reply is then E16, EINVAL).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rsp/thread_id.h"

namespace exo::rsp {

// `thread:TID;` at the end of g, G, p, P after QThreadSuffixSupported. Cuts it off `arguments`.
// Nothing: there was none. A malformed one leaves `arguments` as it was.
std::optional<ThreadId> cut_thread_suffix(std::string_view& arguments);

struct ReadMemory {  // m ADDR,LENGTH   x ADDR,LENGTH
    std::uint64_t address = 0;
    std::uint64_t length = 0;
    static std::optional<ReadMemory> parse(std::string_view arguments);
};

struct WriteMemory {  // M ADDR,LENGTH:hex   X ADDR,LENGTH:binary
    std::uint64_t address = 0;
    std::vector<std::byte> bytes;
    static std::optional<WriteMemory> parse_hex(std::string_view arguments);
    static std::optional<WriteMemory> parse_binary(std::string_view arguments);
};

struct ReadRegister {  // p NUMBER
    std::uint64_t number = 0;
    static std::optional<ReadRegister> parse(std::string_view arguments);
};

struct WriteRegister {  // P NUMBER=hex
    std::uint64_t number = 0;
    std::vector<std::byte> bytes;
    static std::optional<WriteRegister> parse(std::string_view arguments);
};

// G hex, where `x` digits mean "leave this byte". Each element: a byte or nothing.
struct WriteRegisters {
    std::vector<std::optional<std::byte>> bytes;
    static std::optional<WriteRegisters> parse(std::string_view arguments);
};

struct Breakpoint {         // Z TYPE,ADDR,KIND[;cond…]   z TYPE,ADDR,KIND
    std::uint8_t type = 0;  // 0 … 4
    std::uint64_t address = 0;
    std::uint64_t kind = 0;
    std::string conditions;  // what follows the kind, from its ';' on; not looked at here
    static std::optional<Breakpoint> parse(std::string_view arguments);
};

struct ResumeAction {  // one action of vCont
    enum class Kind : std::uint8_t { go_on, step, range_step, stop };
    Kind kind = Kind::go_on;
    std::uint8_t signal = 0;        // of C and S
    std::uint64_t range_start = 0;  // of r: stop when pc leaves [start, end)
    std::uint64_t range_end = 0;
    ThreadId thread{ThreadId::all, ThreadId::all};  // an action without a thread-id is for all
};

struct Resume {  // vCont;ACTION[:THREAD]…   The first action that matches a thread is its own.
    std::vector<ResumeAction> actions;
    static std::optional<Resume> parse(std::string_view arguments);
    // c [ADDR], C SIG[;ADDR], s [ADDR], S SIG[;ADDR]. `letter` is the packet's. The address is returned by
    // `from`.
    static std::optional<Resume> parse_old(char letter, std::string_view arguments,
                                           std::optional<std::uint64_t>& from);
};

struct ThreadLocal {  // qGetTLSAddr:THREAD,OFFSET,LINK-MAP
    ThreadId thread;
    std::uint64_t offset = 0;
    std::uint64_t link_map = 0;
    static std::optional<ThreadLocal> parse(std::string_view arguments);
};

struct CatchSystemCalls {  // QCatchSyscalls:0   QCatchSyscalls:1[;NR]…
    bool on = false;
    std::vector<std::uint32_t> numbers;  // none: all system calls
    static std::optional<CatchSystemCalls> parse(std::string_view arguments);
};

struct SelectThread {      // H OP THREAD
    char operation = 'g';  // 'g' for registers and memory, 'c' for c and s
    ThreadId thread;
    static std::optional<SelectThread> parse(std::string_view arguments);
};

struct TransferRead {  // qXfer:…:read:ANNEX:OFFSET,LENGTH
    std::string_view annex;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    static std::optional<TransferRead> parse(std::string_view arguments);  // from ANNEX on
};

struct Transfer : TransferRead {  // the same with its OBJECT
    std::string_view object;
    static std::optional<Transfer> parse(std::string_view arguments);  // from OBJECT on
};

struct SearchMemory {  // qSearch:memory:ADDR;LENGTH;binary pattern
    std::uint64_t address = 0;
    std::uint64_t length = 0;
    std::string pattern;
    static std::optional<SearchMemory> parse(std::string_view arguments);
};

struct Checksum {  // qCRC:ADDR,LENGTH
    std::uint64_t address = 0;
    std::uint64_t length = 0;
    static std::optional<Checksum> parse(std::string_view arguments);
};

// What the client says of itself in qSupported, and in packets that only it sends.
struct ClientFeatures {
    bool multiprocess = false;
    bool swbreak = false;
    bool hwbreak = false;
    bool error_message = false;  // gdb 16: E.text is understood everywhere
    bool binary_upload = false;  // the client knows `x` in gdb's form
    bool no_resumed = false;
    bool vcont_supported = false;
    bool fork_events = false;  // T05fork
    bool vfork_events = false;
    bool exec_events = false;
    bool expands_runs = false;  // every client that sends qSupported: gdbserver's replies have runs, too
    static ClientFeatures parse(std::string_view arguments);  // from qSupported's ':' on; never fails
};

}  // namespace exo::rsp
