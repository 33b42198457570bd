// The decoder, on anything: how the bytes are cut up makes no difference, and no payload is over the limit.
#include "rsp/frame.h"

#include <vector>

#include "fuzz.h"

namespace {

constexpr std::size_t limit = 64;

std::vector<exo::rsp::Frame> decode(std::string_view wire, std::uint8_t flags, std::size_t piece) {
    exo::rsp::FrameDecoder decoder(limit);
    decoder.expand_runs((flags & 1) != 0);
    decoder.ignore_checksums((flags & 2) != 0);
    std::vector<exo::rsp::Frame> frames;
    while (!wire.empty()) {
        decoder.feed(wire.substr(0, piece));
        wire.remove_prefix(std::min(piece, wire.size()));
        while (auto frame = decoder.next()) frames.push_back(std::move(*frame));
    }
    return frames;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    exo::fuzz::Input input(data, size);
    const std::uint8_t flags = input.byte();
    const auto whole = decode(input.rest(), flags, size + 1);
    const auto pieces = decode(input.rest(), flags, 1U + (flags >> 2));
    exo::fuzz::require(whole.size() == pieces.size());
    for (std::size_t i = 0; i < whole.size(); ++i) {
        exo::fuzz::require(whole[i].kind == pieces[i].kind && whole[i].payload == pieces[i].payload);
        exo::fuzz::require(whole[i].payload.size() <= limit);
    }
    return 0;
}
