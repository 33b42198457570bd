// vCont, and the packets that it replaced.
#include "rsp/cursor.h"
#include "rsp/hex.h"
#include "rsp/requests.h"

namespace exo::rsp {
namespace {

// More than any client has threads to name; what it costs is bounded with it.
constexpr std::size_t most_actions = 65536;

// SIG: two digits from every client; one is taken too.
std::optional<std::uint8_t> take_signal(Cursor& cursor) {
    const auto signal = cursor.take_number();
    if (!signal || *signal > 0xff) return std::nullopt;
    return static_cast<std::uint8_t>(*signal);
}

// What the letter says, with its arguments, without the thread.
std::optional<ResumeAction> take_action(Cursor& cursor) {
    using Kind = ResumeAction::Kind;
    ResumeAction action;
    if (cursor.take('c')) return action;
    if (cursor.take('s')) {
        action.kind = Kind::step;
        return action;
    }
    if (cursor.take('t')) {
        action.kind = Kind::stop;
        return action;
    }
    if (cursor.take('r')) {
        const auto start = cursor.take_number();
        if (!start || !cursor.take(',')) return std::nullopt;
        const auto end = cursor.take_number();
        if (!end) return std::nullopt;
        action.kind = Kind::range_step;
        action.range_start = *start;
        action.range_end = *end;
        return action;
    }
    if (cursor.take('S')) {
        action.kind = Kind::step;
    } else if (!cursor.take('C')) {
        return std::nullopt;
    }
    const auto signal = take_signal(cursor);
    if (!signal) return std::nullopt;
    action.signal = *signal;
    return action;
}

}  // namespace

std::optional<Resume> Resume::parse(std::string_view arguments) {
    Cursor cursor(arguments);
    cursor.take(';');
    Resume request;
    do {
        auto action = take_action(cursor);
        if (!action || request.actions.size() == most_actions) return std::nullopt;
        if (cursor.take(':')) {
            const auto thread = parse_thread_id(cursor.take_until(";"));
            if (!thread) return std::nullopt;
            action->thread = *thread;
        }
        request.actions.push_back(*action);
    } while (cursor.take(';'));
    if (!cursor.done()) return std::nullopt;
    return request;
}

std::optional<Resume> Resume::parse_old(char letter, std::string_view arguments,
                                        std::optional<std::uint64_t>& from) {
    from.reset();
    ResumeAction action;
    if (letter == 's' || letter == 'S') action.kind = ResumeAction::Kind::step;
    Cursor cursor(arguments);
    if (letter == 'C' || letter == 'S') {
        const auto signal = take_signal(cursor);
        if (!signal || (!cursor.done() && !cursor.take(';'))) return std::nullopt;
        action.signal = *signal;
        if (cursor.done() && arguments.ends_with(';')) return std::nullopt;
    } else if (letter != 'c' && letter != 's') {
        return std::nullopt;
    }
    if (!cursor.done()) {
        const auto address = cursor.take_number();
        if (!address || !cursor.done()) return std::nullopt;
        from = address;
    }
    return Resume{{action}};
}

}  // namespace exo::rsp
