// Framing, both ways (GDB manual, "Overview" of the Remote Protocol). No I/O: bytes in, events out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "rsp/wire_buffer.h"

namespace exo::rsp {

inline constexpr char interrupt_byte = 0x03;  // ^C

struct Frame {
    enum class Kind : std::uint8_t {
        packet,        // $payload#cs, payload unescaped and run-length expanded
        notification,  // %payload#cs
        ack,           // +
        nack,          // -
        interrupt,     // 0x03, or a telnet BREAK (ff f3), outside a packet
        bad_checksum,  // or a run that makes no sense; to be answered with `-` while acks are on
        too_long,      // the packet exceeded the limit; its bytes were dropped to the closing #cs
    };
    Kind kind = Kind::packet;
    std::string payload;  // of packet and notification
};

class FrameDecoder {
public:
    // `limit` is the longest payload, after unescaping, that is kept.
    explicit FrameDecoder(std::size_t limit) : limit_(limit) {}

    void feed(std::string_view bytes);
    // The next event, nothing when more bytes are needed. Never fails: what makes no sense between
    // packets is dropped, as gdb does; so is a notification that is broken or too long, since none is
    // answered. A `$` inside a packet starts it anew (gdb/remote.c read_frame).
    std::optional<Frame> next();
    // Checksums are not looked at after QStartNoAckMode (gdb sends them all the same).
    void ignore_checksums(bool ignore) { ignore_checksums_ = ignore; }
    // RLE is off for what clients send: gdb never run-length encodes what it sends, and `*` in an X packet
    // is a byte. On for the client side, which reads what servers send.
    void expand_runs(bool expand) { expand_runs_ = expand; }

private:
    enum class State : std::uint8_t { idle, telnet, body, escape, run, checksum1, checksum2 };
    void take_run_of_data();
    std::optional<Frame> take_byte(char c);
    std::optional<Frame> take_idle(char c);
    void take_body(char c);
    std::optional<Frame> take_checksum(char c);
    void start(Frame::Kind kind);
    std::optional<Frame> finish();
    void keep(std::string_view data);

    std::size_t limit_;
    std::string input_;
    std::size_t position_ = 0;
    State state_ = State::idle;
    Frame frame_;
    std::uint8_t sum_ = 0;
    std::uint8_t expected_ = 0;
    bool checksum_valid_ = true;
    bool overflow_ = false;
    bool garbled_ = false;
    bool has_raw_ = false;  // whether there is a byte that a run can repeat
    char last_raw_ = 0;
    bool ignore_checksums_ = false;
    bool expand_runs_ = false;
};

// A packet whose payload comes in pieces, each appended to `out` as it comes; `out` may be emptied between
// them.
class PacketWriter {
public:
    explicit PacketWriter(WireBuffer& out, char start = '$');
    void add(std::string_view piece);
    // The same with runs of a byte shortened, which every client that knows qSupported expands, as gdbserver
    // sends them. Text and hex have many: memory that is 0, registers that are unavailable.
    void add_with_runs(std::string_view piece);
    void finish();

private:
    void add_run(char byte, std::size_t length);

    WireBuffer* out_;
    std::uint8_t sum_ = 0;
};

// Appends $payload#cs; `payload` is not part of `out`. Bytes that frame a packet (# $ } *) are escaped, so a
// payload may be binary.
void append_packet(std::string& out, std::string_view payload);
void append_notification(std::string& out, std::string_view payload);

}  // namespace exo::rsp
