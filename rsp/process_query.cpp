#include "rsp/process_query.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include "rsp/cursor.h"
#include "rsp/hex.h"

namespace exo::rsp {
namespace {

using Match = ProcessQuery::Match;

// lldb's GDBRemoteCommunicationClient::FindProcesses().
constexpr auto matches =
    std::to_array<std::pair<std::string_view, Match>>({{"equals", Match::equals},
                                                       {"starts_with", Match::starts_with},
                                                       {"ends_with", Match::ends_with},
                                                       {"contains", Match::contains}});

bool take_pair(std::string_view key, std::string_view value, ProcessQuery& query) {
    if (key == "name") {
        auto name = text_from_hex(value);
        if (!name) return false;
        query.name = *std::move(name);
        return true;
    }
    if (key == "name_match") {
        const auto* found = std::ranges::find(matches, value, &std::pair<std::string_view, Match>::first);
        if (found != matches.end()) query.match = found->second;
        return found != matches.end();
    }
    if (key != "pid") return true;
    std::uint64_t pid = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), pid);
    query.pid = pid;
    return error == std::errc{} && end == value.data() + value.size();
}

}  // namespace

std::optional<ProcessQuery> ProcessQuery::parse(std::string_view arguments) {
    ProcessQuery query;
    Cursor cursor(arguments);
    if (!cursor.done() && !cursor.take(':')) return std::nullopt;
    while (!cursor.done()) {
        const std::string_view key = cursor.take_until(":");
        if (!cursor.take(':')) return std::nullopt;
        const std::string_view value = cursor.take_until(";");
        if (!cursor.take(';') || !take_pair(key, value, query)) return std::nullopt;
    }
    return query;
}

bool ProcessQuery::matches_name(std::string_view of) const {
    switch (match) {
        case Match::any: return true;
        case Match::equals: return of == name;
        case Match::starts_with: return of.starts_with(name);
        case Match::ends_with: return of.ends_with(name);
        case Match::contains: return of.find(name) != std::string_view::npos;
    }
    return false;
}

}  // namespace exo::rsp
