#include "stub/client.h"

#include <sched.h>

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
// How long the next packet is looked for before the thread sleeps, and after how many of them somebody else
// (a signal, another client) has a turn.
constexpr std::chrono::microseconds linger_time{200};
constexpr int most_turns = 256;
// Of one look for a stop in non-stop mode: the longer, the longer nothing has happened.
constexpr std::chrono::milliseconds shortest_patience{1};
constexpr std::chrono::milliseconds longest_patience{16};
// Of a packet in the log.
constexpr std::size_t logged_bytes = 200;

std::string printable(std::string_view payload) {
    std::string text;
    for (const char c : payload.substr(0, logged_bytes)) {
        if (c >= ' ' && c <= '~' && c != '\\') {
            text += c;
            continue;
        }
        constexpr std::string_view digits = "0123456789abcdef";
        const auto byte = static_cast<unsigned char>(c);
        text.append("\\x").append(1, digits[byte >> 4U]).append(1, digits[byte & 0xfU]);
    }
    if (payload.size() > logged_bytes) text += "… (" + std::to_string(payload.size()) + " bytes)";
    return text;
}

}  // namespace

Client::Client(Connection connection, Machine& machine, TargetThread& target_thread,
               const SessionOptions& options, asio::any_io_executor executor, std::ostream* record)
    : connection_(std::move(connection)),
      target_thread_(target_thread),
      session_(machine, options),
      executor_(std::move(executor)),
      record_(record),
      decoder_(options.packet_size),
      bound_(machine.target().bound_to_thread()),
      quiet_timer_(executor_) {}

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
    if (reading_ || lingering_ || eof_ || closing_ || frames_.size() >= most_waiting) return;
    reading_ = true;
    connection_.read_some(input_.data(), input_.size(), [self = shared_from_this()](std::size_t count) {
        self->reading_ = false;
        self->eof_ = count == 0;
        self->linger(count);
    });
}

void Client::received(std::size_t count) {
    decoder_.feed({input_.data(), count});
    while (auto frame = decoder_.next()) take(std::move(*frame));
    flush();  // acknowledgements: gdb sends a packet again after 2 seconds without one
    advance();
}

// A debugger sends most packets right behind a reply, and to be woken for one takes longer than to answer it.
void Client::linger(std::size_t count) {
    lingering_ = true;
    received(count);
    auto until = Clock::now() + linger_time;
    for (int turns = 1; turns < most_turns && Clock::now() < until;) {
        if (running_ || target_busy_ || writing_ || closing_ || eof_) break;
        const std::size_t more = connection_.read_now(input_.data(), input_.size());
        if (more == 0) {
            ::sched_yield();
            continue;
        }
        received(more);
        ++turns;
        until = Clock::now() + linger_time;
    }
    lingering_ = false;
    read();
}

void Client::take(rsp::Frame frame) {
    using Kind = rsp::Frame::Kind;
    switch (frame.kind) {
        case Kind::interrupt:
        case Kind::too_long:
            frames_.push_back(std::move(frame));
            if (running_ && !told_early_) deliver_interrupts();
            break;
        case Kind::packet:
            if (acks_) outgoing_.push_back('+');
            frames_.push_back(std::move(frame));
            break;
        case Kind::nack:
            if (acks_) outgoing_.append(last_packet_.view());
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
    if (poll_is_overdue()) {
        poll_non_stop();
        return true;
    }
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
    if (running_) {
        poll();
        return true;
    }
    if (!session_.non_stop.watches() || !is_quiet()) return false;
    poll_non_stop();
    return true;
}

template <class Job, class Done>
void Client::run_job(Where where, Job job, Done done) {
    if (where == Where::here && !bound_) {
        auto job_and_reply = [&] { done(job()); };  // which may be made in pieces
        target_thread_.alone(job_and_reply);
        return flush();
    }
    target_busy_ = true;
    auto alone = [this, job = std::move(job)]() mutable { return target_thread_.alone(job); };
    target_thread_.run(executor_, std::move(alone), [self = shared_from_this(), done](const auto& result) {
        self->target_busy_ = false;
        done(result);
        self->flush();
        self->advance();
    });
}

// A target may see a ^C there before the I/O thread has a turn beside vCPUs that want all processors. Not in
// non-stop mode, where there is none and part of a packet might look like it.
void Client::listen_to(int line) {
    auto* execution = session_.machine.target().execution();
    if (execution == nullptr) return;
    const auto is_interrupt = [line] { return Connection::is_next(line, rsp::interrupt_byte); };
    execution->listen_to(line < 0 ? Execution::Line{} : Execution::Line{line, is_interrupt});
}

// Acknowledgements go out meanwhile, and `?` and qSupported wait.
void Client::open() {
    run_job(
        Where::target_thread, [this] { return session_.open(); },
        [](const Result<void>& opened) {
            if (opened) return;
            spdlog::error("stopping the guest: {}", opened.error().message);
        });
}

void Client::dispatch() {
    auto payload = std::move(frames_.front().payload);
    frames_.pop_front();
    log("->", payload);
    // Without acknowledgements nobody minds one that comes late.
    // A client that has nothing attached may have to wait for another that has.
    const bool brief = !acks_ && session_.attached && !Session::is_slow(payload);
    const Where where = brief ? Where::here : Where::target_thread;
    const bool in_pieces = where == Where::here && !bound_;
    auto job = [this, payload = std::move(payload), in_pieces] {
        Reply reply = session_.dispatch(payload);
        if (!in_pieces) reply.complete();
        return reply;
    };
    run_job(where, std::move(job), [this](const Reply& reply) {
        if (reply.kind == Reply::Kind::resumed) {
            send(reply);  // what is said before the stop
            running_ = true;
            just_stepped_ = session_.run_control.stepping();
            return deliver_interrupts();
        }
        if (!session_.attached) running_ = false;  // detached while it ran
        last_dispatch_ = Clock::now();
        patience_ = shortest_patience;
        send(reply);
    });
}

// A step is over soon, and mostly without the thread that sees stops. Else it is looked for where that keeps
// nobody from ^C.
void Client::poll() {
    if (std::exchange(just_stepped_, false)) {
        return run_job(
            Where::here, [this] { return session_.poll_stop(step_time); },
            [this](const std::optional<Reply>& reply) { tell(reply); });
    }
    const bool early = !acks_ && !writing_ && outgoing_.empty();
    run_job(
        Where::target_thread,
        [this, early] {
            std::optional<Reply> reply;
            listen_to(connection_.descriptor());
            session_.machine.target().where_stops_are_seen([&] {
                reply = session_.poll_stop(poll_interval);
                if (reply && early) send_early(*reply);
            });
            listen_to(-1);
            return reply;
        },
        [this](const std::optional<Reply>& reply) { tell(reply); });
}

void Client::tell(const std::optional<Reply>& reply) {
    if (!reply) return;
    running_ = reply->kind == Reply::Kind::running;
    told_early_ = false;
    send(*reply);
}

// A packet has to wait for it, so it is brief while there may be more of them.
void Client::poll_non_stop() {
    last_poll_ = Clock::now();
    const auto limit = frames_.empty() ? patience_ : std::chrono::milliseconds{0};
    run_job(
        Where::target_thread, [this, limit] { return session_.poll_stop(limit); },
        [this](const std::optional<Reply>& reply) {
            patience_ = reply ? shortest_patience : std::min(2 * patience_, longest_patience);
            if (reply) send(*reply);
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

// --- what is written ---

void Client::flush() {
    if (writing_ || outgoing_.empty()) return;
    const std::size_t sent = connection_.write_now(outgoing_.view());
    if (sent == outgoing_.size()) return outgoing_.clear();
    writing_ = true;
    in_flight_.clear();
    std::swap(in_flight_, outgoing_);
    connection_.write(in_flight_.view().substr(sent), [self = shared_from_this()](bool written) {
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
