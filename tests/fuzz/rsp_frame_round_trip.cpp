// decode(encode(x)) == x, on either side, and nothing inside the packet frames another. Each way to escape
// writes the same.
#include "fuzz.h"
#include "rsp/escape.h"
#include "rsp/frame.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using exo::rsp::Frame;
    const std::string_view payload = exo::fuzz::as_text(data, size);
    std::string wire;
    exo::rsp::append_packet(wire, payload);
    exo::rsp::append_notification(wire, payload);
    exo::fuzz::require(std::count(wire.begin(), wire.end(), '$') == 1);
    exo::fuzz::require(std::count(wire.begin(), wire.end(), '#') == 2);
    for (const bool runs : {false, true}) {
        exo::rsp::FrameDecoder decoder(size);
        decoder.expand_runs(runs);
        decoder.feed(wire);
        const auto packet = decoder.next();
        exo::fuzz::require(packet && packet->kind == Frame::Kind::packet && packet->payload == payload);
        const auto notification = decoder.next();
        exo::fuzz::require(notification && notification->kind == Frame::Kind::notification &&
                           notification->payload == payload);
        exo::fuzz::require(!decoder.next());
    }
    const auto ways = exo::rsp::escape_ways();
    std::string first(2 * size, '\0');
    const auto one = ways.front()(payload, first.data());
    for (const auto way : ways.subspan(1)) {
        std::string second(2 * size, '\0');
        const auto other = way(payload, second.data());
        exo::fuzz::require(one.length == other.length && one.sum == other.sum);
        exo::fuzz::require(std::string_view{first}.substr(0, one.length) ==
                           std::string_view{second}.substr(0, one.length));
    }
    return 0;
}
