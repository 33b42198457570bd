// The client side of the protocol: what talks to another stub (QEMU's own, gdbserver). No I/O: the caller
// moves the bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rsp/frame.h"
#include "rsp/stop_reply.h"
#include "rsp/thread_id.h"

namespace exo::rsp {

// Acknowledges, retransmits and unpacks. One request is under way at a time.
class Client {
public:
    // `limit` is the longest reply that is kept; a longer one is reported as Event::Kind::broken.
    explicit Client(std::size_t limit = std::size_t{1} << 20U);

    struct Event {
        enum class Kind : std::uint8_t {
            packet,        // a reply or a stop reply
            notification,  // %payload, never acknowledged
            broken,        // the server keeps sending what cannot be read: give the connection up
        };
        Kind kind = Kind::packet;
        std::string payload;
    };

    void send(std::string_view payload);
    void send_interrupt();  // 0x03, not a packet
    void feed(std::string_view bytes);
    // The next event, nothing when more bytes are needed.
    std::optional<Event> next();
    // What is to be written to the server. The caller takes all of it.
    std::string take_output();
    [[nodiscard]] bool has_output() const { return !output_.empty(); }
    // Whether the server has acknowledged the last send(). Meaningless without acks.
    [[nodiscard]] bool acknowledged() const { return acknowledged_; }
    // After QStartNoAckMode was answered OK.
    void stop_acks();

private:
    FrameDecoder decoder_;
    std::string output_;
    std::string last_;  // as framed, for a retransmission
    bool acks_ = true;
    bool acknowledged_ = true;
    std::uint32_t failures_ = 0;
};

// "E14", "E.text": the part behind the E. Nothing if `payload` is no error. A reply of hex digits is never
// mistaken for one: hex replies are of even length and lower case.
std::optional<std::string_view> error_text(std::string_view payload);

// "T05thread:1;watch:ffff8000;", "S05", "W00", "X09;process:1", "N". A vCPU that the server named and how the
// guest ended are kept; expedited registers too. Nothing if it is no stop reply.
std::optional<StopReply> parse_stop_reply(std::string_view payload);

// "PacketSize=1000;qXfer:features:read+;…"
struct ServerFeatures {
    std::size_t packet_size = 0;  // bytes, 0 if not told
    bool features_read = false;   // qXfer:features:read
    bool no_ack = false;          // QStartNoAckMode
    bool multiprocess = false;
    bool vcont = false;  // vContSupported
    static ServerFeatures parse(std::string_view payload);
};

// A slice of a qXfer object: 'm' more is to come, 'l' the last. Nothing on anything else.
struct XferSlice {
    std::string_view data;
    bool last = false;
    static std::optional<XferSlice> parse(std::string_view payload);
};

// "m1,2,3" as answers qfThreadInfo and qsThreadInfo; "l" is the empty list. Nothing on a malformed one.
std::optional<std::vector<ThreadId>> parse_thread_list(std::string_view payload);

// One <reg> of a target description.
struct DescribedRegister {
    std::string name;
    std::uint32_t bits = 0;
    std::uint32_t number = 0;  // regnum="", or one more than the register before it
    std::string type;
};

// The <reg> elements of one document in their order, the first one being `first_number`. A document that is
// malformed gives the registers before the place. `includes` gets the hrefs of its xi:include elements.
std::vector<DescribedRegister> parse_registers(std::string_view xml, std::uint32_t first_number,
                                               std::vector<std::string>* includes = nullptr);

}  // namespace exo::rsp
