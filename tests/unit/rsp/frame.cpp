#include "rsp/frame.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <vector>

using namespace std::literals;
using exo::rsp::append_notification;
using exo::rsp::append_packet;
using exo::rsp::Frame;
using exo::rsp::FrameDecoder;

namespace {

using FrameKind = Frame::Kind;

// What a decoder makes of `wire`, one word an event: kind, and payload where there is one.
std::vector<std::string> events(FrameDecoder& decoder, std::string_view wire, std::size_t piece = 1 << 20) {
    std::vector<std::string> seen;
    while (!wire.empty()) {
        decoder.feed(wire.substr(0, piece));
        wire.remove_prefix(std::min(piece, wire.size()));
        while (const std::optional<Frame> frame = decoder.next()) {
            switch (frame->kind) {
                case FrameKind::packet: seen.push_back("packet:" + frame->payload); break;
                case FrameKind::notification: seen.push_back("notification:" + frame->payload); break;
                case FrameKind::ack: seen.push_back("ack"); break;
                case FrameKind::nack: seen.push_back("nack"); break;
                case FrameKind::interrupt: seen.push_back("interrupt"); break;
                case FrameKind::bad_checksum: seen.push_back("bad_checksum"); break;
                case FrameKind::too_long: seen.push_back("too_long"); break;
            }
        }
    }
    return seen;
}

std::vector<std::string> events(std::string_view wire) {
    FrameDecoder decoder(1000);
    return events(decoder, wire);
}

std::vector<std::string> events_with_runs(std::string_view wire) {
    FrameDecoder decoder(1000);
    decoder.expand_runs(true);
    return events(decoder, wire);
}

using Events = std::vector<std::string>;

std::string packet(std::string_view payload) {
    std::string out;
    append_packet(out, payload);
    return out;
}

// Every byte value, evenly, in no order: one byte in 64 needs an escape.
std::string random_bytes(std::size_t size) {
    std::mt19937 random(1);
    std::string bytes(size, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    return bytes;
}

}  // namespace

TEST_CASE("runs: what is sent, and that it comes out as it went in") {
    const auto sent = [](std::string_view payload) {
        exo::rsp::WireBuffer out;
        exo::rsp::PacketWriter writer{out};
        writer.add_with_runs(payload);
        writer.finish();
        return std::string{out.view()};
    };
    const auto x = [](std::size_t count) { return std::string(count, 'x'); };
    CHECK(sent(x(15)).starts_with("$" + x(15) + "#"));
    CHECK(sent(x(16)).starts_with("$x*,#"));
    CHECK(sent("12345" + x(16) + "6").starts_with("$12345x*,6#"));
    CHECK(sent(x(98)).starts_with("$x*~#"));
    CHECK(sent(x(99)).starts_with("$x*~x#"));
    CHECK(sent(x(106)).starts_with("$x*~x*\"xx#"));  // 6 and 7 repeats would be a '#' and a '$'
    CHECK(sent(std::string(16, '#')).starts_with("$}\x03}\x03}\x03}\x03"));
    for (std::size_t length = 0; length < 400; ++length) {
        for (const char byte : {'0', '*', '}', '\0', '\x7f'}) {
            const auto payload = "ab" + std::string(length, byte) + "0000c" + std::string(length % 7, 'c');
            FrameDecoder decoder{4096};
            decoder.expand_runs(true);
            decoder.feed(sent(payload));
            const auto frame = decoder.next();
            REQUIRE(frame.has_value());
            CHECK(frame->kind == Frame::Kind::packet);
            CHECK(frame->payload == payload);
        }
    }
}

TEST_CASE("a packet in pieces is the packet, also when the buffer is emptied between them") {
    std::string payload;
    for (int i = 0; i < 30000; ++i) payload += static_cast<char>(i * 7);
    std::string expected;
    append_packet(expected, payload);
    for (const std::size_t size : {1UL, 15UL, 4096UL, 5000UL, 70000UL}) {
        exo::rsp::WireBuffer out;
        std::string sent;
        exo::rsp::PacketWriter writer{out};
        for (std::size_t at = 0; at < payload.size(); at += size) {
            writer.add(std::string_view{payload}.substr(at, size));
            if (at % 3 == 0) {
                sent += out.view();
                out.clear();
            }
        }
        writer.finish();
        sent += out.view();
        CHECK(sent == expected);
    }
}

TEST_CASE("a packet is framed with the sum of its bytes") {
    CHECK(packet("") == "$#00");
    CHECK(packet("OK") == "$OK#9a");
    CHECK(packet("E01") == "$E01#a6");
    CHECK(packet("\xff\xff"s) == "$\xff\xff#fe"s);
    std::string out = "+";
    append_notification(out, "Stop:T05");
    CHECK(out == "+%Stop:T05#99");
}

TEST_CASE("bytes that frame a packet are escaped, and summed as they go over the wire") {
    CHECK(packet("#") == "$}\x03#80");
    CHECK(packet("$") == "$}\x04#81");
    CHECK(packet("*") == "$}\x0a#87");
    CHECK(packet("}") == "$}]#da");
    CHECK(packet("abcdefgh#$ijklmnop*") == "$abcdefgh}\x03}\x04ijklmnop}\x0a#10");
}

TEST_CASE("events between packets") {
    CHECK(events("+-\x03") == Events{"ack", "nack", "interrupt"});
    CHECK(events("\xff\xf3g") == Events{"interrupt"});
    CHECK(events("\xff+\xff\xff\xf3") == Events{"ack", "interrupt"});
    CHECK(events("rubbish\r\n#00+") == Events{"ack"});
}

TEST_CASE("packets and notifications") {
    CHECK(events("+$qC#b4+$g#67") == Events{"ack", "packet:qC", "ack", "packet:g"});
    CHECK(events("$#00") == Events{"packet:"});
    CHECK(events("$OK#9A") == Events{"packet:OK"});
    CHECK(events("%Stop:T05#99$g#67") == Events{"notification:Stop:T05", "packet:g"});
    CHECK(events("$X0,2:}\x03}]#7a") == Events{"packet:X0,2:#}"});
}

TEST_CASE("what frames nothing is data inside a packet") {
    CHECK(events("$a\x03+-%\xff\xf3*b#5f") == Events{"packet:a\x03+-%\xff\xf3*b"});
    CHECK(events("$a}%#03") == Events{"packet:a\x05"});
}

TEST_CASE("a packet that starts in another one takes its place") {
    CHECK(events("$m0,4$g#67") == Events{"packet:g"});
    CHECK(events("$m0}$g#67") == Events{"packet:g"});
    CHECK(events("%Stop$g#67") == Events{"packet:g"});
    CHECK(events("$OK#$g#67") == Events{"bad_checksum", "packet:g"});
    CHECK(events("$OK#9$g#67") == Events{"bad_checksum", "packet:g"});
}

TEST_CASE("a brace before the closing # is data, and does not hide it") {
    CHECK(events("$a}#de$g#67") == Events{"packet:a}", "packet:g"});
}

TEST_CASE("checksums") {
    CHECK(events("$OK#9b$g#67") == Events{"bad_checksum", "packet:g"});
    CHECK(events("$OK#zz$g#67") == Events{"bad_checksum", "packet:g"});
    CHECK(events("%Stop#00$g#67") == Events{"packet:g"});

    FrameDecoder trusting(100);
    trusting.ignore_checksums(true);
    CHECK(events(trusting, "$OK#9b$OK#zz$OK#$g#00") ==
          Events{"packet:OK", "packet:OK", "packet:OK", "packet:g"});
}

TEST_CASE("runs are expanded where a server may send them") {
    CHECK(events_with_runs("$0* #7a") == Events{"packet:0000"});
    CHECK(events_with_runs("$a0*\"b#3f") == Events{"packet:a000000b"});
    CHECK(events_with_runs("$x*~#20") == Events{"packet:" + std::string(98, 'x')});
    // "#" and two bytes 03: the run repeats what is on the wire.
    CHECK(events_with_runs("$}\x03*\x1f#c9") == Events{"packet:#\x03\x03"});
    // An escaped '*' is none.
    CHECK(events_with_runs("$0}\x0a #d7") == Events{"packet:0* "});
    CHECK(events("$0* #7a") == Events{"packet:0* "});
}

TEST_CASE("a run that makes no sense spoils its packet, whatever the checksum") {
    FrameDecoder decoder(100);
    decoder.expand_runs(true);
    decoder.ignore_checksums(true);
    CHECK(events(decoder, "$* #00") == Events{"bad_checksum"});
    CHECK(events(decoder, "$0*#00") == Events{"bad_checksum"});
    CHECK(events(decoder, "$0*\x1d#00") == Events{"bad_checksum"});
    CHECK(events(decoder, "$0*\x7f#00") == Events{"bad_checksum"});
    CHECK(events(decoder, "$0*\xff#00") == Events{"bad_checksum"});
    CHECK(events(decoder, "$0*$g#00") == Events{"packet:g"});
}

TEST_CASE("a packet over the limit is dropped to its end and reported") {
    FrameDecoder decoder(8);
    CHECK(events(decoder, packet("12345678")) == Events{"packet:12345678"});
    CHECK(events(decoder, packet("123456789") + packet("g")) == Events{"too_long", "packet:g"});
    CHECK(events(decoder, "$123456789#00$g#67") == Events{"too_long", "packet:g"});
    CHECK(events(decoder, packet("########")) == Events{"packet:########"});
    CHECK(events(decoder, packet("#########")) == Events{"too_long"});
    CHECK(events(decoder, "$123456789$g#67") == Events{"packet:g"});
    decoder.expand_runs(true);
    CHECK(events(decoder, "$0*%#7f$0*$g#67") == Events{"too_long", "packet:g"});
}

TEST_CASE("how the bytes are cut up makes no difference") {
    const std::string wire = "+" + packet(random_bytes(100)) + "\xff\xf3-$x$" + packet("a}b").substr(1) +
                             "$bad#00%n#6e" + packet("qC");
    const Events whole = events(wire);
    REQUIRE(whole.size() == 8);
    for (std::size_t piece = 1; piece < wire.size(); ++piece) {
        CAPTURE(piece);
        FrameDecoder decoder(1000);
        CHECK(events(decoder, wire, piece) == whole);
    }
}

TEST_CASE("every byte at every alignment survives the trip") {
    for (std::size_t size = 0; size < 40; ++size) {
        for (int value = 0; value < 256; ++value) {
            std::string payload(size, 'a');
            if (size > 0) payload[static_cast<std::size_t>(value) % size] = static_cast<char>(value);
            CHECK(events(packet(payload)) == Events{"packet:" + payload});
        }
    }
    const std::string large = random_bytes(1 << 20);
    FrameDecoder decoder(large.size());
    CHECK(events(decoder, packet(large), 4097) == Events{"packet:" + large});
}
