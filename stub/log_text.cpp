#include "stub/log_text.h"

#include <array>
#include <boost/json.hpp>
#include <cstdio>

namespace exo::stub {
namespace {

namespace json = boost::json;

std::string time_stamp(std::uint64_t nanoseconds) {
    std::array<char, 64> text{};
    const auto length = std::snprintf(text.data(), text.size(), "[%5llu.%06llu] ",
                                      static_cast<unsigned long long>(nanoseconds / 1'000'000'000),
                                      static_cast<unsigned long long>(nanoseconds % 1'000'000'000 / 1000));
    return {text.data(), static_cast<std::size_t>(length)};
}

// Bytes of the printable character that begins `text`: ASCII, or UTF-8 (RFC 3629, section 4) above the
// control characters of 0x80 to 0x9f. 0 if it is none.
std::size_t printable_bytes(std::string_view text) {
    const auto byte = [&](std::size_t i) {
        return i < text.size() ? static_cast<unsigned char>(text[i]) : std::uint8_t{0};
    };
    const auto between = [&](std::size_t i, unsigned low, unsigned high) {
        return byte(i) >= low && byte(i) <= high;
    };
    const unsigned first = byte(0);
    if (first < 0x80) return first >= 0x20 && first != 0x7f ? 1 : 0;
    if (first >= 0xc2 && first <= 0xdf) return between(1, first == 0xc2 ? 0xa0 : 0x80, 0xbf) ? 2 : 0;
    const bool two_follow = between(2, 0x80, 0xbf);
    if (first >= 0xe0 && first <= 0xef) {
        const bool second = between(1, first == 0xe0 ? 0xa0 : 0x80, first == 0xed ? 0x9f : 0xbf);
        return second && two_follow ? 3 : 0;
    }
    const bool second = between(1, first == 0xf0 ? 0x90 : 0x80, first == 0xf4 ? 0x8f : 0xbf);
    return first >= 0xf0 && first <= 0xf4 && second && two_follow && between(3, 0x80, 0xbf) ? 4 : 0;
}

void append_escaped(std::string& out, char c) {
    static constexpr std::string_view digits = "0123456789abcdef";
    const auto byte = static_cast<unsigned char>(c);
    out.append("\\x").append(1, digits.at(byte / 16)).append(1, digits.at(byte % 16));
}

// `indent` before each line but the first.
void append_text(std::string& out, std::string_view text, std::size_t indent) {
    while (!text.empty()) {
        std::size_t bytes = printable_bytes(text);
        if (bytes != 0 || text[0] == '\t') {
            bytes = bytes == 0 ? 1 : bytes;
            out.append(text.substr(0, bytes));
        } else if (bytes = 1; text[0] == '\n') {
            out.append("\n").append(indent, ' ');
        } else {
            append_escaped(out, text[0]);
        }
        text.remove_prefix(bytes);
    }
}

}  // namespace

std::string log_text(std::span<const os::LogRecord> records) {
    std::string out;
    for (const auto& record : records) {
        const auto stamp = time_stamp(record.time_ns);
        out += stamp;
        append_text(out, record.text, stamp.size());
        out += '\n';
    }
    return out;
}

std::string log_json(const os::KernelLog& log) {
    json::array records;
    for (const auto& record : log.records) {
        std::string text;  // JSON is UTF-8, the guest's bytes may be anything
        append_text(text, record.text, 0);
        json::object object{{"time_ns", record.time_ns},
                            {"sequence", record.sequence},
                            {"level", record.level},
                            {"facility", record.facility},
                            {"text", text}};
        if (record.caller) object[record.caller->cpu ? "cpu" : "tid"] = record.caller->number;
        records.push_back(std::move(object));
    }
    json::array missing;
    for (const auto& line : log.missing) missing.push_back(json::string{line});
    return json::serialize(json::object{{"records", std::move(records)}, {"missing", std::move(missing)}}) +
           "\n";
}

}  // namespace exo::stub
