#include "rsp/thread_id.h"

#include <limits>

#include "rsp/hex.h"

namespace exo::rsp {
namespace {

std::optional<std::int64_t> parse_part(std::string_view text) {
    if (text == "-1") return ThreadId::all;
    const std::optional<std::uint64_t> number = parse_hex_number(text);
    if (!number || *number > std::numeric_limits<std::int64_t>::max()) return std::nullopt;
    return static_cast<std::int64_t>(*number);
}

void append_part(std::string& out, std::int64_t part) {
    if (part < 0) {
        out += "-1";
    } else {
        append_hex_number(out, static_cast<std::uint64_t>(part));
    }
}

}  // namespace

std::optional<ThreadId> parse_thread_id(std::string_view text) {
    if (!text.starts_with('p')) {
        const std::optional<std::int64_t> tid = parse_part(text);
        if (!tid) return std::nullopt;
        return ThreadId{ThreadId::any, *tid};
    }
    text.remove_prefix(1);
    const std::size_t dot = text.find('.');
    const std::optional<std::int64_t> pid = parse_part(text.substr(0, dot));
    if (!pid) return std::nullopt;
    if (dot == std::string_view::npos) return ThreadId{*pid, ThreadId::all};
    const std::optional<std::int64_t> tid = parse_part(text.substr(dot + 1));
    // One thread of every process is an error (GDB manual, "Packets", thread-id syntax).
    if (!tid || (*pid == ThreadId::all && *tid > 0)) return std::nullopt;
    return ThreadId{*pid, *tid};
}

void append_thread_id(std::string& out, ThreadId id, bool multiprocess) {
    if (multiprocess) {
        out += 'p';
        append_part(out, id.pid);
        out += '.';
    }
    append_part(out, id.tid);
}

}  // namespace exo::rsp
