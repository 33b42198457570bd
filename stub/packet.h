// A row of the packet table (stub/packet_table.cpp).
//
// To add a packet: a request type with parse() in rsp/requests.h, a handler in stub/handlers/, a row in the
// table, a transcript in tests/transcripts/. `qSupported`, `exogdb --list-packets` and docs/packets.md are
// printed from the rows.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

#include "backends/api/result.h"
#include "stub/reply.h"

namespace exo::stub {

class Session;

enum class Match : std::uint8_t { exact, prefix };

// What must stand for a packet in non-stop mode. What runs is stopped for that moment.
enum class Stands : std::uint8_t {
    guest,
    thread,  // the selected one, whose registers are wanted
    memory,  // nothing, where the address space of the selected thread is known
    nothing,
};

struct Packet {
    std::string_view name;  // on the wire
    Match match = Match::prefix;
    // What must be there for the packet to exist; absent capability: the empty reply.
    bool (*available)(const Session&) = nullptr;
    bool text_errors = false;    // every client takes E.text here (gdb/remote.c packet_check_result)
    bool while_running = false;  // handled while the guest runs; others wait for the stop
    Stands stands = Stands::guest;
    bool slow = false;           // may take seconds: never in the thread that acknowledges
    bool when_detached = false;  // makes sense with no guest attached (extended-remote after `detach`)
    std::string_view feature;    // what qSupported says of it
    std::string_view summary;    // for --list-packets
    Result<Reply> (*handle)(Session&, std::string_view arguments) = nullptr;
};

namespace detail {

template <class T>
struct request_of;
template <class R>
struct request_of<Result<Reply> (*)(Session&, R)> {
    using type = std::remove_cvref_t<R>;
};

}  // namespace detail

// Adapts a handler that takes a parsed request to the table's uniform signature.
template <auto handler>
Result<Reply> handle_with(Session& session, std::string_view arguments) {
    using Request = typename detail::request_of<decltype(handler)>::type;
    if constexpr (std::is_same_v<Request, std::string_view>) {
        return handler(session, arguments);
    } else {
        const auto request = Request::parse(arguments);
        if (!request) return fail(Errc::bad_request, "malformed packet");
        return handler(session, *request);
    }
}

std::span<const Packet> packet_table();
// The row for `payload`, null for an unknown packet. The longest matching name wins.
const Packet* find_packet(std::string_view payload);

}  // namespace exo::stub
