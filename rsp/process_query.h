// Which processes a client of lldb's platform protocol asks for (lldb/docs/resources/lldbplatformpackets).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace exo::rsp {

struct ProcessQuery {  // qfProcessInfo   or qfProcessInfo:KEY:VALUE;…
    enum class Match : std::uint8_t { any, equals, starts_with, ends_with, contains };
    Match match = Match::any;
    std::string name;  // bytes of the client's
    std::optional<std::uint64_t> pid;

    // Nothing for a regular expression, which is not evaluated here. Keys that say what is not told of a
    // process (its user, its architecture) leave out nothing.
    static std::optional<ProcessQuery> parse(std::string_view arguments);
    [[nodiscard]] bool matches_name(std::string_view of) const;
};

}  // namespace exo::rsp
