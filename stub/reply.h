// What a handler answers, and the one place where errors become replies.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/error.h"
#include "rsp/requests.h"

namespace exo::stub {

struct Reply {
    enum class Kind : std::uint8_t {
        packet,   // send `payload`
        resumed,  // the guest runs; the reply is the stop reply, later
        silent,   // no reply at all (k), or only notifications
        running,  // `before` alone; the guest still runs, and the stop reply is still to come
    };
    Kind kind = Kind::packet;
    std::string payload;  // unescaped; empty is the "unknown packet" reply
    struct Piece {
        std::string_view bytes;  // good until the next piece; may be empty
        bool last = true;        // not to be asked again
    };
    // The rest of the payload where it is long. To be asked before the session is asked anything else. The
    // client reads the first pieces while the others are made.
    std::function<Piece()> more;
    std::vector<std::string> before;  // packets to send first: O console output
    std::vector<std::string> after;   // notifications to send then: "Stop:T05…"
    bool binary = false;              // memory as it is, in which runs are not looked for
    bool closes = false;              // the session ends after this
    bool ends_acks = false;           // QStartNoAckMode: no + and - after this reply

    void complete() {
        while (more) {
            const Piece piece = more();
            payload += piece.bytes;
            if (piece.last) more = nullptr;
        }
    }
};

inline Reply ok() { return {.payload = "OK"}; }
inline Reply unknown_packet() { return {}; }
inline Reply text(std::string payload) { return {.payload = std::move(payload)}; }

// `text` for the client's console, as the O packets that it needs.
std::vector<std::string> console_output(std::string_view text, std::size_t packet_size);

// How a client wants errors spelled.
struct ErrorStyle {
    bool text_allowed = false;  // E.text: the packet's row allows it or the client said error-message+
    bool lldb_strings = false;  // Exx;hex-text after QEnableErrorStrings
};

// Numbers are errno values in two hex digits (GDB manual, "Standard Replies"): E16 is EINVAL.
std::string render_error(const Error& error, ErrorStyle style);

}  // namespace exo::stub
