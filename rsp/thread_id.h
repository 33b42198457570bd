// thread-id: "p<pid>.<tid>" with multiprocess, else "<tid>"; hex, -1 all, 0 any.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace exo::rsp {

// A pattern more than an id: either part may be "all" or "any".
struct ThreadId {
    static constexpr std::int64_t all = -1;
    static constexpr std::int64_t any = 0;
    std::int64_t pid = any;  // any too where the client left it out
    std::int64_t tid = any;

    friend bool operator==(const ThreadId&, const ThreadId&) = default;
};

// "p1.-1", "p1" (all threads of it), "-1", "2f". lldb pads with zeros. Nothing on anything else.
std::optional<ThreadId> parse_thread_id(std::string_view text);
void append_thread_id(std::string& out, ThreadId id, bool multiprocess);

}  // namespace exo::rsp
