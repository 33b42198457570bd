// Replies become packets: of Client.
#include <spdlog/spdlog.h>

#include "stub/client.h"

namespace exo::stub {
namespace {

// Less of a reply than this waits for its next piece.
constexpr std::size_t worth_sending = 4096;
// What PacketWriter asks for beyond what it needs.
constexpr std::size_t lent_slack = 1U << 16U;

}  // namespace

void Client::refuse_long_packet() {
    spdlog::warn("a packet longer than PacketSize ({} bytes) was dropped", session_.options.packet_size);
    if (acks_) outgoing_.push_back('+');
    send_packet(text(render_error({Errc::bad_request, "packet longer than PacketSize"},
                                  {.text_allowed = session_.client.error_message})));
    flush();
}

void Client::send(const Reply& reply) {
    if (early_.empty()) {
        for (const std::string& packet : reply.before) send_packet(text(packet));
        if (reply.kind == Reply::Kind::packet) send_packet(reply);
    } else {
        for (const std::string& packet : reply.before) log("<-", packet);
        if (reply.kind == Reply::Kind::packet) log("<-", reply.payload);
        outgoing_.append(early_.view().substr(early_sent_));
        early_.clear();
    }
    for (const std::string& payload : reply.after) send_notification(payload);
    if (reply.ends_acks) {
        acks_ = false;
        decoder_.ignore_checksums(true);
    }
    if (reply.closes) closing_ = true;
}

// By the thread that has seen the stop, since waking the other takes as long again. That one writes nothing
// meanwhile: there are no acknowledgements, and packets wait.
void Client::send_early(const Reply& reply) {
    for (const std::string& packet : reply.before) append_packet(text(packet), early_);
    if (reply.kind == Reply::Kind::packet) append_packet(reply, early_);
    told_early_ = reply.kind != Reply::Kind::running;
    early_sent_ = connection_.write_now(early_.view());
}

void Client::send_packet(const Reply& reply) {
    log("<-", reply.payload);
    if (lend_packet(reply)) return;
    if (!acks_) return append_packet(reply, outgoing_);
    last_packet_.clear();
    append_packet(reply, last_packet_);
    outgoing_.append(last_packet_.view());
}

void Client::append_packet(const Reply& reply, rsp::WireBuffer& out) {
    const bool runs = session_.client.expands_runs && !reply.binary;
    rsp::PacketWriter writer{out};
    for (Reply::Piece piece{reply.payload, !reply.more};; piece = reply.more()) {
        runs ? writer.add_with_runs(piece.bytes) : writer.add(piece.bytes);
        if (piece.last) break;
        if (&out == &outgoing_ && out.size() >= worth_sending) flush();
    }
    writer.finish();
}

// Neither acknowledged nor sent again.
void Client::send_notification(const std::string& payload) {
    log("<-", "%" + payload);
    rsp::PacketWriter writer{outgoing_, '%'};
    session_.client.expands_runs ? writer.add_with_runs(payload) : writer.add(payload);
    writer.finish();
}

// The memory of a long reply, to a client that reads each piece where it was made. True if all of it is sent
// or waits to be.
bool Client::lend_packet(const Reply& reply) {
    if (!reply.binary || !reply.more || acks_ || writing_ || !outgoing_.empty()) return false;
    Lender* const lender = connection_.lender(2 * session_.options.packet_size + lent_slack);
    rsp::WireBuffer* const buffer = lender != nullptr ? lender->take() : nullptr;
    if (buffer == nullptr) return false;
    rsp::PacketWriter writer{*buffer};
    std::size_t sent = 0;
    bool all = true;
    for (Reply::Piece piece{reply.payload, !reply.more};; piece = reply.more()) {
        writer.add(piece.bytes);
        if (piece.last) writer.finish();
        const auto rest = buffer->view().substr(sent);
        if (all && (piece.last || rest.size() >= worth_sending)) {
            sent += lender->lend(rest);
            all = sent == buffer->size();
        }
        if (piece.last) break;
    }
    outgoing_.append(buffer->view().substr(sent));
    return true;
}

}  // namespace exo::stub
