// Requests about tracepoints (GDB manual, "Tracepoint Packets"; gdb/remote.c and gdbserver/tracepoint.cc for
// what the manual leaves open). parse() gets what follows the wire name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "rsp/agent_expression.h"
#include "rsp/breakpoint_program.h"

namespace exo::rsp {

// What a tracepoint does at a hit. Each is kept as the client wrote it, which uploads want.
struct CollectRegisters {  // R MASK: all of them are collected, as gdbserver does
    std::string text;
};
struct CollectMemory {  // M BASE,OFFSET,LENGTH
    static constexpr std::uint64_t most_bytes = 0x10000;
    std::string text;
    std::optional<std::uint64_t> base;  // a register, nothing for an address
    std::uint64_t offset = 0;           // two's complement
    std::uint64_t length = 0;
};
struct CollectByExpression {  // X LENGTH,BYTES
    std::string text;
    AgentExpression expression;
};
using TraceAction = std::variant<CollectRegisters, CollectMemory, CollectByExpression>;

struct DefineTracepoint {  // QTDP:N:ADDR:ENA:STEP:PASS[:XLEN,BYTES][-]   QTDP:-N:ADDR:ACTION…[-]
    struct Head {
        bool enabled = true;
        std::uint64_t pass_count = 0;  // the trace ends at so many hits; 0: it does not
        std::optional<AgentExpression> condition;
        std::string condition_text;  // X…, as it was sent
    };
    std::uint64_t number = 0;
    std::uint64_t address = 0;
    std::optional<Head> head;  // nothing: `actions` are added to those that are there
    std::vector<TraceAction> actions;

    // Malformed: nothing, or why in words.
    static std::variant<DefineTracepoint, std::string> parse(std::string_view arguments);
};

struct TracepointSource {  // QTDPsrc:N:ADDR:TYPE:START:LENGTH:hex
    std::uint64_t number = 0;
    std::uint64_t address = 0;
    std::string text;  // from TYPE on, as uploads want it
    static std::optional<TracepointSource> parse(std::string_view arguments);
};

struct TracepointId {  // QTEnable:N:ADDR   QTDisable:N:ADDR   qTP:N:ADDR
    std::uint64_t number = 0;
    std::uint64_t address = 0;
    static std::optional<TracepointId> parse(std::string_view arguments);
};

struct DefineTraceVariable {  // QTDV:N:VALUE:BUILTIN:hex name
    std::uint64_t number = 0;
    std::uint64_t value = 0;
    bool builtin = false;
    std::string name;
    static std::optional<DefineTraceVariable> parse(std::string_view arguments);
};

struct SelectTraceFrame {  // QTFrame:N   pc:ADDR   tdp:N   range:A:B   outside:A:B
    enum class By : std::uint8_t { number, pc, tracepoint, range, outside, none };
    By by = By::none;  // none: back to the guest as it is
    std::uint64_t first = 0;
    std::uint64_t last = 0;
    static std::optional<SelectTraceFrame> parse(std::string_view arguments);
};

struct ReadOnlyRanges {  // QTro:START,END:…   ENDs are exclusive
    static constexpr std::size_t most_ranges = 4096;
    struct Range {
        std::uint64_t start = 0;
        std::uint64_t end = 0;
    };
    std::vector<Range> ranges;
    static std::optional<ReadOnlyRanges> parse(std::string_view arguments);
};

struct TraceNumber {  // qTV:N, in hex
    std::uint64_t number = 0;
    static std::optional<TraceNumber> parse(std::string_view arguments);
};

struct ReadTraceBuffer {  // qTBuffer:OFFSET,LENGTH
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    static std::optional<ReadTraceBuffer> parse(std::string_view arguments);
};

}  // namespace exo::rsp
