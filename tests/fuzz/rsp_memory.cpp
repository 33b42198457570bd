// m, x, M, X, qCRC, qSearch: no more bytes than were sent, and what is taken means the same again.
#include "fuzz.h"
#include "rsp/hex.h"
#include "rsp/requests.h"

namespace {

std::string range(std::uint64_t address, std::uint64_t length, char separator = ',') {
    std::string text;
    exo::rsp::append_hex_number(text, address);
    text += separator;
    exo::rsp::append_hex_number(text, length);
    return text;
}

void check(const exo::rsp::WriteMemory& request, std::size_t size) {
    exo::fuzz::require(request.bytes.size() <= size);
    std::string text = range(request.address, request.bytes.size()) + ":";
    exo::rsp::append_hex(text, std::span<const std::byte>(request.bytes));
    const auto again = exo::rsp::WriteMemory::parse_hex(text);
    exo::fuzz::require(again && again->address == request.address && again->bytes == request.bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view text = exo::fuzz::as_text(data, size);
    const auto read = exo::rsp::ReadMemory::parse(text);
    if (read) {
        const auto again = exo::rsp::ReadMemory::parse(range(read->address, read->length));
        exo::fuzz::require(again && again->address == read->address && again->length == read->length);
    }
    exo::fuzz::require(exo::rsp::Checksum::parse(text).has_value() == read.has_value());
    if (const auto write = exo::rsp::WriteMemory::parse_hex(text)) check(*write, size);
    if (const auto write = exo::rsp::WriteMemory::parse_binary(text)) check(*write, size);
    if (const auto search = exo::rsp::SearchMemory::parse(text)) {
        exo::fuzz::require(!search->pattern.empty() && text.ends_with(";" + search->pattern));
        const auto again = exo::rsp::SearchMemory::parse(range(search->address, search->length, ';') + ";" +
                                                         search->pattern);
        exo::fuzz::require(again && again->address == search->address && again->length == search->length);
    }
    return 0;
}
