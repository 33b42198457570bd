// decode(encode(x)) == x, on either side, and nothing inside the packet frames another.
#include "fuzz.h"
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
    return 0;
}
