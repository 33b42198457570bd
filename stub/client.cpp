#include "stub/client.h"

#include <chrono>
#include <utility>

#include <spdlog/spdlog.h>

namespace exo::stub {
namespace {

// How long one look for a stop may keep the target thread; interrupt() cuts it short.
constexpr std::chrono::milliseconds poll_interval{50};
constexpr std::chrono::milliseconds step_time{5};
// What a client may have sent ahead of the packet that is at work, in packets, and what it may leave unread,
// in bytes: then it has to wait.
constexpr std::size_t most_waiting = 1024;
constexpr std::size_t most_unsent = 4U << 20U;
// Of a packet in the log.
constexpr std::size_t shown = 200;

std::string printable(std::string_view payload) {
    std::string text;
    for (const char c : payload.substr(0, shown)) {
        if (c >= ' ' && c <= '~' && c != '\\') {
            text += c;
            continue;
        }
        constexpr std::string_view digits = "0123456789abcdef";
        const auto byte = static_cast<unsigned char>(c);
        text.append("\\x").append(1, digits[byte >> 4U]).append(1, digits[byte & 0xfU]);
    }
    if (payload.size() > shown) text += "… (" + std::to_string(payload.size()) + " bytes)";
    return text;
}

}  // namespace

Client::Client(Connection connection, Machine& machine, TargetThread& target_thread, SessionOptions options,
               asio::any_io_executor executor, std::ostream* record)
    : connection_(std::move(connection)),
      target_thread_(target_thread),
      session_(machine, options),
      executor_(std::move(executor)),
      record_(record),
      decoder_(options.packet_size),
      bound_(machine.target().bound_to_thread()) {}

void Client::start(std::function<void(bool)> ended) {
    ended_ = std::move(ended);
    open();
    read();
}

void Client::stop() {
    closing_ = abandoned_ = true;
    advance();
}

// --- the client's bytes ---

void Client::read() {
    if (reading_ || eof_ || closing_ || frames_.size() >= most_waiting) return;
    reading_ = true;
    connection_.read_some(input_.data(), input_.size(), [self = shared_from_this()](std::size_t count) {
        self->reading_ = false;
        self->eof_ = count == 0;
        self->decoder_.feed({self->input_.data(), count});
        while (auto frame = self->decoder_.next()) self->take(std::move(*frame));
        self->flush();  // acknowledgements: gdb sends a packet again after 2 seconds without one
        self->advance();
    });
}

void Client::take(rsp::Frame frame) {
    using Kind = rsp::Frame::Kind;
    switch (frame.kind) {
        case Kind::interrupt:
        case Kind::too_long:
            frames_.push_back(std::move(frame));
            if (running_) deliver_interrupts();
            break;
        case Kind::packet:
            if (acks_) outgoing_.push_back('+');
            frames_.push_back(std::move(frame));
            break;
        case Kind::nack:
            if (acks_) outgoing_.append(last_packet_);
            break;
        case Kind::bad_checksum:
            if (acks_) outgoing_.push_back('-');
            break;
        case Kind::ack:
        case Kind::notification: break;
    }
}

// Every ^C that waits for its turn, wherever it waits: the guest runs.
void Client::deliver_interrupts() {
    const auto count =
        std::erase_if(frames_, [](const rsp::Frame& f) { return f.kind == rsp::Frame::Kind::interrupt; });
    if (count == 0) return;
    log("->", "^C");
    session_.interrupt();
}

// --- the target's jobs ---

void Client::advance() {
    if (std::exchange(advancing_, true)) return;
    while (start_next()) {
    }
    advancing_ = false;
    read();
    if (closed_) finish();
}

// What comes next, if anything can. True if there may be more to do at once.
bool Client::start_next() {
    using Kind = rsp::Frame::Kind;
    if (target_busy_ || closed_) return false;
    if (closing_) {
        close();
        return false;
    }
    // A client that does not take its replies gets no more of them.
    if (outgoing_.size() > most_unsent) return false;
    if (!frames_.empty()) {
        const auto& frame = frames_.front();
        if (frame.kind != Kind::packet) {
            // A ^C that arrives after the stop it asked for has no reply to wait for.
            if (frame.kind == Kind::interrupt) log("->", "^C");
            if (frame.kind == Kind::too_long) refuse_long_packet();
            frames_.pop_front();
            return true;
        }
        if (!running_ || !Session::waits_for_stop(frame.payload)) {
            dispatch();
            return true;
        }
    }
    if (eof_) {
        closing_ = true;
        return true;
    }
    if (!running_) return false;
    poll();
    return true;
}

template <class Job, class Done>
void Client::run_job(Where where, Job job, Done done) {
    if (where == Where::here && !bound_) {
        done(job());
        return flush();
    }
    target_busy_ = true;
    target_thread_.run(executor_, std::move(job), [self = shared_from_this(), done](auto result) {
        self->target_busy_ = false;
        done(std::move(result));
        self->flush();
        self->advance();
    });
}

// Acknowledgements go out meanwhile, and `?` and qSupported wait.
void Client::open() {
    run_job(
        Where::target_thread, [this] { return session_.open(); },
        [this](const Result<void>& opened) {
            if (opened) return;
            spdlog::error("stopping the guest: {}", opened.error().message);
        });
}

void Client::dispatch() {
    auto payload = std::move(frames_.front().payload);
    frames_.pop_front();
    log("->", payload);
    // Without acknowledgements nobody minds one that comes late.
    const Where where = acks_ || Session::is_slow(payload) ? Where::target_thread : Where::here;
    const bool in_pieces = where == Where::here && !bound_;
    auto job = [this, payload = std::move(payload), in_pieces] {
        Reply reply = session_.dispatch(payload);
        if (!in_pieces) reply.complete();
        return reply;
    };
    run_job(where, std::move(job), [this](const Reply& reply) {
        if (reply.kind == Reply::Kind::resumed) {
            running_ = just_resumed_ = true;
            return deliver_interrupts();
        }
        if (!session_.attached) running_ = false;  // detached while it ran
        send(reply);
    });
}

// A step is over soon. Else it is looked for where that keeps nobody from ^C.
void Client::poll() {
    const bool soon = std::exchange(just_resumed_, false);
    const auto limit = soon ? step_time : poll_interval;
    run_job(
        soon ? Where::here : Where::target_thread, [this, limit] { return session_.poll_stop(limit); },
        [this](const std::optional<Reply>& reply) {
            if (!reply) return;
            running_ = false;
            send(*reply);
        });
}

void Client::close() {
    run_job(
        Where::target_thread, [this] { return session_.close(); },
        [this](const Result<void>& closed) {
            closed_ = true;
            if (closed || closed.error().code == Errc::target_gone) return;
            spdlog::error("giving the guest back: {}", closed.error().message);
        });
}

void Client::finish() {
    if (!ended_ || (writing_ && !abandoned_)) return;
    connection_.close();
    std::exchange(ended_, nullptr)(session_.guest_gone);
}

// --- replies ---

void Client::refuse_long_packet() {
    spdlog::warn("a packet longer than PacketSize ({} bytes) was dropped", session_.options.packet_size);
    if (acks_) outgoing_.push_back('+');
    send_packet(render_error({Errc::bad_request, "packet longer than PacketSize"},
                             {.text_allowed = session_.client.error_message}));
    flush();
}

void Client::send(const Reply& reply) {
    for (const std::string& packet : reply.before) send_packet(packet);
    if (reply.kind == Reply::Kind::packet && reply.more) {
        send_pieces(reply);
    } else if (reply.kind == Reply::Kind::packet) {
        send_packet(reply.payload);
    }
    if (reply.ends_acks) {
        acks_ = false;
        decoder_.ignore_checksums(true);
    }
    if (reply.closes) closing_ = true;
}

void Client::send_packet(std::string_view payload) {
    log("<-", payload);
    if (!acks_) return rsp::append_packet(outgoing_, payload);
    last_packet_.clear();
    rsp::append_packet(last_packet_, payload);
    outgoing_.append(last_packet_);
}

void Client::send_pieces(const Reply& reply) {
    log("<-", reply.payload);
    rsp::PacketWriter writer{outgoing_};
    for (std::string_view piece = reply.payload; !piece.empty(); piece = reply.more()) {
        writer.add(piece);
        flush();
    }
    writer.finish();
}

void Client::flush() {
    if (writing_ || outgoing_.empty()) return;
    writing_ = true;
    in_flight_.clear();
    std::swap(in_flight_, outgoing_);
    connection_.write(in_flight_.view(), [self = shared_from_this()](bool written) {
        self->writing_ = false;
        if (!written) {
            self->closing_ = true;
            self->outgoing_.clear();
        }
        self->flush();
        self->advance();
    });
}

void Client::log(std::string_view arrow, std::string_view payload) {
    if (spdlog::should_log(spdlog::level::trace)) spdlog::trace("{} {}", arrow, printable(payload));
    if (record_ != nullptr) *record_ << arrow << ' ' << printable(payload) << std::endl;
}

}  // namespace exo::stub
