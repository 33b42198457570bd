// `monitor filter`: which threads a breakpoint is for, asked at each hit in the server. gdb's own
// `break … thread N` stops the guest at each hit, since there is no packet for it.
#include <charconv>

#include "rsp/cursor.h"
#include "stub/handlers/monitor_commands.h"

namespace exo::stub::handlers {
namespace {

constexpr std::size_t longest_comm = 15;  // TASK_COMM_LEN, include/linux/sched.h

tl::unexpected<Error> usage() {
    return fail(
        Errc::bad_request,
        "usage: filter ADDRESS tid N | pid N | comm NAME | off   (ADDRESS: 0x…, SYMBOL or SYMBOL+0x…)");
}

Result<VirtualAddress> address_of(Session& session, std::string_view text) {
    if (text.starts_with("0x")) {
        if (const auto address = rsp::parse_hex_number(text.substr(2))) return VirtualAddress{*address};
        return fail(Errc::bad_request, "malformed address: " + std::string{text});
    }
    const auto plus = text.find("+0x");
    const auto name = text.substr(0, plus);
    const auto offset =
        plus == text.npos ? std::uint64_t{0} : rsp::parse_hex_number(text.substr(plus + 3)).value_or(0);
    CHECK_OK(session.machine.look_once());
    const auto* os = session.machine.os();
    const auto address = os != nullptr ? session.machine.os()->find_symbol(name) : std::nullopt;
    if (!address) return fail(Errc::not_found, "no symbol " + std::string{name});
    return VirtualAddress{raw(*address) + offset};
}

Result<ThreadFilter> filter_of(std::string_view kind, std::string_view value) {
    ThreadFilter filter;
    if (kind == "comm" && !value.empty()) {
        filter.by = ThreadFilter::By::comm;
        filter.comm = value.substr(0, longest_comm);
        return filter;
    }
    if (kind != "tid" && kind != "pid") return usage();
    filter.by = kind == "tid" ? ThreadFilter::By::tid : ThreadFilter::By::pid;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), filter.number);
    if (value.empty() || error != std::errc{} || end != value.data() + value.size()) return usage();
    return filter;
}

}  // namespace

Result<std::string> set_filter(Session& session, std::string_view arguments) {
    rsp::Cursor cursor{arguments};
    const auto place = cursor.take_until(" ");
    cursor.take(' ');
    const auto kind = cursor.take_until(" ");
    cursor.take(' ');
    if (place.empty() || kind.empty()) return usage();
    const VirtualAddress address = TRY(address_of(session, place));
    auto& conditions = session.run_control.conditions;
    if (kind == "off") {
        return conditions.remove_filter(address) ? hex(address) + ": every thread\n"
                                                 : "there is no filter at " + hex(address) + "\n";
    }
    auto filter = TRY(filter_of(kind, cursor.rest()));
    std::string text = hex(address) + ": only " + to_string(filter) + "\n";
    conditions.set_filter(address, std::move(filter));
    return text;
}

std::string conditions_text(const Conditions& conditions, const BreakpointKey& key) {
    std::string text;
    const auto filter = conditions.filters().find(key.address);
    if (filter != conditions.filters().end()) text += "  only " + to_string(filter->second);
    const auto* program = conditions.program(key);
    if (program == nullptr) return text;
    if (!program->conditions.empty()) text += "  if one of " + std::to_string(program->conditions.size());
    if (!program->commands.empty())
        text += "  does " + std::to_string(program->commands.size()) + " while the client is there";
    return text;
}

std::string conditions_text(const Session& session) {
    std::string text;
    for (const auto& [address, count] : session.run_control.conditions.passed())
        text += hex(address) + "  went on " + std::to_string(count) + " times\n";
    for (const auto& [address, filter] : session.run_control.conditions.filters()) {
        if (session.run_control.breakpoints.client_breakpoint_at(address)) continue;
        text += hex(address) + "  filter for breakpoints here: only " + to_string(filter) + "\n";
    }
    return text;
}

}  // namespace exo::stub::handlers
