#include "rsp/requests.h"

#include "rsp/cursor.h"
#include "rsp/hex.h"

namespace exo::rsp {
namespace {

struct Range {
    std::uint64_t address = 0;
    std::uint64_t length = 0;
};

// ADDR SEPARATOR LENGTH, both hex.
std::optional<Range> take_range(Cursor& cursor, char separator = ',') {
    const auto address = cursor.take_number();
    if (!address || !cursor.take(separator)) return std::nullopt;
    const auto length = cursor.take_number();
    if (!length) return std::nullopt;
    return Range{*address, *length};
}

// A range and nothing behind it.
std::optional<Range> parse_range(std::string_view arguments) {
    Cursor cursor(arguments);
    const auto range = take_range(cursor);
    if (!cursor.done()) return std::nullopt;
    return range;
}

}  // namespace

std::optional<ThreadId> cut_thread_suffix(std::string_view& arguments) {
    constexpr std::string_view key = ";thread:";
    const std::size_t at = arguments.rfind(key);
    if (at == std::string_view::npos || !arguments.ends_with(';')) return std::nullopt;
    const std::string_view id = arguments.substr(at + key.size());
    if (id.empty()) return std::nullopt;  // the ';' is the key's own
    const auto thread = parse_thread_id(id.substr(0, id.size() - 1));
    if (thread) arguments = arguments.substr(0, at);
    return thread;
}

std::optional<ReadMemory> ReadMemory::parse(std::string_view arguments) {
    const auto range = parse_range(arguments);
    if (!range) return std::nullopt;
    return ReadMemory{range->address, range->length};
}

std::optional<WriteMemory> WriteMemory::parse_hex(std::string_view arguments) {
    Cursor cursor(arguments);
    const auto range = take_range(cursor);
    if (!range || !cursor.take(':')) return std::nullopt;
    auto bytes = from_hex(cursor.rest());
    if (!bytes || bytes->size() != range->length) return std::nullopt;
    return WriteMemory{range->address, std::move(*bytes)};
}

std::optional<WriteMemory> WriteMemory::parse_binary(std::string_view arguments) {
    Cursor cursor(arguments);
    const auto range = take_range(cursor);
    if (!range || !cursor.take(':') || cursor.rest().size() != range->length) return std::nullopt;
    const auto* data = reinterpret_cast<const std::byte*>(cursor.rest().data());
    return WriteMemory{range->address, std::vector<std::byte>(data, data + cursor.rest().size())};
}

std::optional<ReadRegister> ReadRegister::parse(std::string_view arguments) {
    const auto number = parse_hex_number(arguments);
    if (!number) return std::nullopt;
    return ReadRegister{*number};
}

std::optional<WriteRegister> WriteRegister::parse(std::string_view arguments) {
    Cursor cursor(arguments);
    const auto number = cursor.take_number();
    if (!number || !cursor.take('=') || cursor.done()) return std::nullopt;
    auto bytes = from_hex(cursor.rest());
    if (!bytes) return std::nullopt;
    return WriteRegister{*number, std::move(*bytes)};
}

std::optional<WriteRegisters> WriteRegisters::parse(std::string_view arguments) {
    if (arguments.empty() || arguments.size() % 2 != 0) return std::nullopt;
    WriteRegisters request;
    request.bytes.reserve(arguments.size() / 2);
    for (; !arguments.empty(); arguments.remove_prefix(2)) {
        const std::string_view digits = arguments.substr(0, 2);
        if (digits == "xx") {
            request.bytes.emplace_back();
            continue;
        }
        const auto byte = parse_hex_number(digits);
        if (!byte) return std::nullopt;
        request.bytes.emplace_back(static_cast<std::byte>(*byte));
    }
    return request;
}

std::optional<Breakpoint> Breakpoint::parse(std::string_view arguments) {
    Cursor cursor(arguments);
    const auto type = cursor.take_number();
    if (!type || *type > 4 || !cursor.take(',')) return std::nullopt;
    const auto range = take_range(cursor);
    if (!range || (!cursor.done() && !cursor.rest().starts_with(';'))) return std::nullopt;
    return Breakpoint{static_cast<std::uint8_t>(*type), range->address, range->length,
                      std::string(cursor.rest())};
}

std::optional<ThreadLocal> ThreadLocal::parse(std::string_view arguments) {
    Cursor cursor(arguments);
    const auto thread = parse_thread_id(cursor.take_until(","));
    if (!thread || !cursor.take(',')) return std::nullopt;
    const auto range = take_range(cursor);
    if (!range || !cursor.done()) return std::nullopt;
    return ThreadLocal{*thread, range->address, range->length};
}

std::optional<CatchSystemCalls> CatchSystemCalls::parse(std::string_view arguments) {
    if (arguments == "0") return CatchSystemCalls{};
    Cursor cursor(arguments);
    if (!cursor.take('1')) return std::nullopt;
    CatchSystemCalls request{.on = true};
    while (!cursor.done()) {
        const auto number = cursor.take(';') ? cursor.take_number() : std::nullopt;
        if (!number || *number > UINT32_MAX) return std::nullopt;
        request.numbers.push_back(static_cast<std::uint32_t>(*number));
    }
    return request;
}

std::optional<SelectThread> SelectThread::parse(std::string_view arguments) {
    if (!arguments.starts_with('g') && !arguments.starts_with('c')) return std::nullopt;
    const auto thread = parse_thread_id(arguments.substr(1));
    if (!thread) return std::nullopt;
    return SelectThread{arguments.front(), *thread};
}

std::optional<TransferRead> TransferRead::parse(std::string_view arguments) {
    // The annex is the client's, and may have a ':' of its own; the range has none.
    const std::size_t colon = arguments.rfind(':');
    if (colon == std::string_view::npos) return std::nullopt;
    const auto range = parse_range(arguments.substr(colon + 1));
    // No reply to a length of 0 can be right: `l` ends the object, and `m` alone is an error to gdb.
    if (!range || range->length == 0) return std::nullopt;
    return TransferRead{arguments.substr(0, colon), range->address, range->length};
}

std::optional<Transfer> Transfer::parse(std::string_view arguments) {
    Cursor cursor(arguments);
    const std::string_view object = cursor.take_until(":");
    if (object.empty() || !cursor.take(":read:")) return std::nullopt;
    const auto read = TransferRead::parse(cursor.rest());
    if (!read) return std::nullopt;
    return Transfer{*read, object};
}

std::optional<SearchMemory> SearchMemory::parse(std::string_view arguments) {
    Cursor cursor(arguments);
    const auto range = take_range(cursor, ';');
    if (!range || !cursor.take(';') || cursor.done()) return std::nullopt;
    return SearchMemory{range->address, range->length, std::string(cursor.rest())};
}

std::optional<Checksum> Checksum::parse(std::string_view arguments) {
    const auto range = parse_range(arguments);
    if (!range) return std::nullopt;
    return Checksum{range->address, range->length};
}

ClientFeatures ClientFeatures::parse(std::string_view arguments) {
    Cursor cursor(arguments);
    cursor.take(':');
    ClientFeatures features{.expands_runs = true};
    while (!cursor.done()) {
        const std::string_view feature = cursor.take_until(";");
        cursor.take(';');
        features.multiprocess |= feature == "multiprocess+";
        features.swbreak |= feature == "swbreak+";
        features.hwbreak |= feature == "hwbreak+";
        features.error_message |= feature == "error-message+";
        features.binary_upload |= feature == "binary-upload+";
        features.no_resumed |= feature == "no-resumed+";
        features.vcont_supported |= feature == "vContSupported+";
        features.fork_events |= feature == "fork-events+";
        features.vfork_events |= feature == "vfork-events+";
        features.exec_events |= feature == "exec-events+";
    }
    // gdb does not say that it knows `x`; it learnt it in the release that brought error-message, 16.
    features.binary_upload |= features.error_message;
    return features;
}

}  // namespace exo::rsp
