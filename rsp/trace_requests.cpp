#include "rsp/trace_requests.h"

#include <algorithm>

#include "rsp/cursor.h"

namespace exo::rsp {
namespace {

constexpr std::uint64_t most_number = 0x7fffffff;  // gdb's are int

std::optional<std::uint64_t> take_id(Cursor& cursor) {
    const auto number = cursor.take_number();
    return number && *number <= most_number ? number : std::nullopt;
}

// N:ADDR, the beginning of many.
std::optional<TracepointId> take_tracepoint(Cursor& cursor) {
    const auto number = take_id(cursor);
    if (!number || !cursor.take(':')) return std::nullopt;
    const auto address = cursor.take_number();
    if (!address) return std::nullopt;
    return TracepointId{*number, *address};
}

std::string malformed() { return "malformed tracepoint"; }

// Parses what QTDP has behind the address.
class DefinitionParser {
public:
    DefinitionParser(std::string_view text, DefineTracepoint& request) : text_(text), request_(request) {}

    // Why it is refused; empty if it is not.
    std::string head() {
        DefineTracepoint::Head head;
        Cursor cursor(text_);
        const bool enabled = cursor.take("E:");
        if (!enabled && !cursor.take("D:")) return malformed();
        head.enabled = enabled;
        const auto step = cursor.take_number();
        if (!step || !cursor.take(':')) return malformed();
        if (*step != 0) return "while-stepping: the guest is not stepped for a trace";
        const auto pass = cursor.take_number();
        if (!pass) return malformed();
        head.pass_count = *pass;
        for (text_ = cursor.rest(); text_.starts_with(':');) {
            text_.remove_prefix(1);
            if (!text_.starts_with('X')) return "there are no fast and no static tracepoints";
            if (auto refusal = condition(head); !refusal.empty()) return refusal;
        }
        request_.head = std::move(head);
        return text_.empty() || text_ == "-" ? std::string{} : malformed();
    }

    std::string actions() {
        while (!text_.empty() && text_ != "-") {
            std::string refusal;
            switch (text_.front()) {
                case 'R': refusal = registers(); break;
                case 'M': refusal = memory(); break;
                case 'X': refusal = by_expression(); break;
                case 'S': return "while-stepping: the guest is not stepped for a trace";
                default: return malformed();
            }
            if (!refusal.empty()) return refusal;
        }
        return {};
    }

private:
    std::string expression(std::optional<AgentExpression>& expression, std::string& text) {
        const std::string_view from = text_;
        text_.remove_prefix(1);
        auto taken = take_expression(text_);
        if (const auto* why = std::get_if<BreakpointProgram::Malformed>(&taken))
            return why->error ? to_string(*why->error) : malformed();
        expression = std::get<AgentExpression>(std::move(taken));
        text = from.substr(0, from.size() - text_.size());
        return {};
    }
    std::string condition(DefineTracepoint::Head& head) {
        return expression(head.condition, head.condition_text);
    }
    std::string registers() {
        std::size_t length = 1;
        while (length < text_.size() && parse_hex_number(text_.substr(length, 1))) ++length;
        if (length == 1) return malformed();
        request_.actions.emplace_back(CollectRegisters{std::string{text_.substr(0, length)}});
        text_.remove_prefix(length);
        return {};
    }
    // The base is -1 where there is none (gdb/tracepoint.c, collection_list::stringify()).
    std::string memory() {
        CollectMemory action;
        Cursor cursor(text_.substr(1));
        if (!cursor.take("-1,")) {
            const auto base = cursor.take_number();
            if (!base || !cursor.take(',')) return malformed();
            if (*base != 0xffffffff && *base != ~std::uint64_t{0}) action.base = base;
        }
        const auto offset = cursor.take_number();
        if (!offset || !cursor.take(',')) return malformed();
        const auto length = cursor.take_number();
        if (!length) return malformed();
        if (*length > CollectMemory::most_bytes) return "too much memory for one hit";
        action.offset = *offset;
        action.length = *length;
        action.text = text_.substr(0, text_.size() - cursor.rest().size());
        text_ = cursor.rest();
        request_.actions.emplace_back(std::move(action));
        return {};
    }
    std::string by_expression() {
        std::optional<AgentExpression> taken;
        std::string text;
        if (auto refusal = expression(taken, text); !refusal.empty()) return refusal;
        request_.actions.emplace_back(CollectByExpression{std::move(text), *std::move(taken)});
        return {};
    }

    std::string_view text_;
    DefineTracepoint& request_;
};

}  // namespace

std::variant<DefineTracepoint, std::string> DefineTracepoint::parse(std::string_view arguments) {
    DefineTracepoint request;
    Cursor cursor(arguments);
    const bool more = cursor.take('-');
    const auto id = take_tracepoint(cursor);
    if (!id || !cursor.take(':')) return malformed();
    request.number = id->number;
    request.address = id->address;
    DefinitionParser parser(cursor.rest(), request);
    if (auto refusal = more ? parser.actions() : parser.head(); !refusal.empty()) return refusal;
    return request;
}

std::optional<TracepointSource> TracepointSource::parse(std::string_view arguments) {
    Cursor cursor(arguments);
    const auto id = take_tracepoint(cursor);
    if (!id || !cursor.take(':')) return std::nullopt;
    const std::string_view text = cursor.rest();
    const bool typed = !cursor.take_until(":").empty() && cursor.take(':');
    const bool placed = typed && cursor.take_number() && cursor.take(':') && cursor.take_number();
    if (!placed || !cursor.take(':') || !from_hex(cursor.rest())) return std::nullopt;
    return TracepointSource{id->number, id->address, std::string{text}};
}

std::optional<TracepointId> TracepointId::parse(std::string_view arguments) {
    Cursor cursor(arguments);
    const auto id = take_tracepoint(cursor);
    return cursor.done() ? id : std::nullopt;
}

std::optional<DefineTraceVariable> DefineTraceVariable::parse(std::string_view arguments) {
    Cursor cursor(arguments);
    const auto number = take_id(cursor);
    if (!number || !cursor.take(':')) return std::nullopt;
    const auto value = cursor.take_number();
    if (!value || !cursor.take(':')) return std::nullopt;
    const auto builtin = cursor.take_number();
    if (!builtin || !cursor.take(':')) return std::nullopt;
    auto name = text_from_hex(cursor.rest());
    if (!name) return std::nullopt;
    return DefineTraceVariable{*number, *value, *builtin != 0, *std::move(name)};
}

std::optional<SelectTraceFrame> SelectTraceFrame::parse(std::string_view arguments) {
    struct Row {
        std::string_view word;
        By by;
        bool two;
    };
    static constexpr Row rows[] = {{"pc:", By::pc, false},
                                   {"tdp:", By::tracepoint, false},
                                   {"range:", By::range, true},
                                   {"outside:", By::outside, true},
                                   {"", By::number, false}};
    Cursor cursor(arguments);
    const auto* const row = std::ranges::find_if(rows, [&](const Row& r) { return cursor.take(r.word); });
    SelectTraceFrame request{.by = row->by};
    if (row->by == By::number && cursor.rest() == "-1") return SelectTraceFrame{};
    const auto first = cursor.take_number();
    if (!first) return std::nullopt;
    request.first = request.last = *first;
    if (row->two) {
        if (!cursor.take(':')) return std::nullopt;
        const auto last = cursor.take_number();
        if (!last) return std::nullopt;
        request.last = *last;
    }
    if (!cursor.done()) return std::nullopt;
    // -1 as gdb writes it, an unsigned int.
    if (request.by == By::number && request.first == 0xffffffff) return SelectTraceFrame{};
    return request;
}

std::optional<ReadOnlyRanges> ReadOnlyRanges::parse(std::string_view arguments) {
    ReadOnlyRanges request;
    Cursor cursor(arguments);
    while (cursor.take(':')) {
        const auto start = cursor.take_number();
        if (!start || !cursor.take(',')) return std::nullopt;
        const auto end = cursor.take_number();
        if (!end || *end < *start || request.ranges.size() == most_ranges) return std::nullopt;
        request.ranges.push_back({*start, *end});
    }
    return cursor.done() ? std::optional{request} : std::nullopt;
}

std::optional<TraceNumber> TraceNumber::parse(std::string_view arguments) {
    const auto number = parse_hex_number(arguments);
    return number ? std::optional{TraceNumber{*number}} : std::nullopt;
}

std::optional<ReadTraceBuffer> ReadTraceBuffer::parse(std::string_view arguments) {
    Cursor cursor(arguments);
    const auto offset = cursor.take_number();
    if (!offset || !cursor.take(',')) return std::nullopt;
    const auto length = cursor.take_number();
    if (!length || !cursor.done()) return std::nullopt;
    return ReadTraceBuffer{*offset, *length};
}

}  // namespace exo::rsp
