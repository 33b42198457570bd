#include "stub/client.h"

#include <array>
#include <chrono>
#include <utility>

#include <spdlog/spdlog.h>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/this_coro.hpp>

namespace exo::stub {
namespace {

// How long one look for a stop may keep the target thread; interrupt() cuts it short.
constexpr std::chrono::milliseconds poll_interval{50};
// The frame around a packet's payload, and room for the escapes of a client's write of a whole packet.
constexpr std::size_t read_size = 1U << 16U;
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
               const asio::any_io_executor& executor, std::ostream* record)
    : connection_(std::move(connection)),
      target_thread_(target_thread),
      session_(machine, options),
      decoder_(options.packet_size),
      events_(executor),
      record_(record) {}

asio::awaitable<bool> Client::run() {
    const auto executor = co_await asio::this_coro::executor;
    const auto self = shared_from_this();
    auto opened = co_await target_thread_.run([this] { return session_.open(); });
    if (!opened) {
        spdlog::error("stopping the guest: {}", opened.error().message);
        guest_gone_ = opened.error().code == Errc::target_gone;
        session_.open_error = opened.error();
    }
    asio::co_spawn(executor, [self]() { return self->read(); }, asio::detached);
    while (!closing_) {
        Event event = co_await events_.pop();
        if (auto* frame = std::get_if<rsp::Frame>(&event)) {
            handle(std::move(*frame));
        } else if (auto* stopped = std::get_if<TargetStopped>(&event)) {
            running_ = false;
            send(stopped->reply);
        } else {
            closing_ = true;
        }
        co_await dispatch_packets();
        co_await flush();
    }
    const auto closed = co_await target_thread_.run([this] { return session_.close(); });
    if (!closed && closed.error().code != Errc::target_gone) {
        spdlog::error("giving the guest back: {}", closed.error().message);
    }
    connection_.close();
    co_return guest_gone_;
}

void Client::stop() { events_.push(Disconnected{}); }

asio::awaitable<void> Client::read() {
    const auto self = shared_from_this();
    std::array<char, read_size> buffer{};
    for (;;) {
        const std::size_t count = co_await connection_.read_some(buffer.data(), buffer.size());
        if (count == 0) break;
        decoder_.feed({buffer.data(), count});
        while (auto frame = decoder_.next()) events_.push(std::move(*frame));
    }
    events_.push(Disconnected{});
}

asio::awaitable<void> Client::wait_for_stop() {
    const auto self = shared_from_this();
    while (running_ && !closing_) {
        auto reply = co_await target_thread_.run([this] { return session_.poll_stop(poll_interval); });
        if (!reply) continue;
        guest_gone_ = session_.last_stop.exited;
        events_.push(TargetStopped{std::move(*reply)});
        break;
    }
}

void Client::handle(rsp::Frame frame) {
    using Kind = rsp::Frame::Kind;
    switch (frame.kind) {
        case Kind::interrupt:
            log("->", "^C");
            // One that arrives after the stop it asked for has no reply to wait for.
            if (running_) session_.interrupt();
            break;
        case Kind::nack:
            if (acks_) outgoing_ += last_packet_;
            break;
        case Kind::bad_checksum:
            if (acks_) outgoing_ += '-';
            break;
        case Kind::too_long:
            spdlog::warn("a packet longer than PacketSize ({} bytes) was dropped",
                         session_.options.packet_size);
            if (acks_) outgoing_ += '+';
            send_packet(render_error({Errc::bad_request, "packet longer than PacketSize"},
                                     {.text_allowed = session_.client.error_message}));
            break;
        case Kind::packet:
            if (acks_) outgoing_ += '+';
            packets_.push_back(std::move(frame.payload));
            break;
        case Kind::ack:
        case Kind::notification: break;
    }
}

asio::awaitable<void> Client::dispatch_packets() {
    const auto executor = co_await asio::this_coro::executor;
    while (!packets_.empty() && !closing_) {
        if (running_ && Session::waits_for_stop(packets_.front())) co_return;
        const std::string payload = std::move(packets_.front());
        packets_.pop_front();
        log("->", payload);
        const Reply reply = co_await target_thread_.run([&] { return session_.dispatch(payload); });
        if (reply.kind == Reply::Kind::resumed) {
            running_ = true;
            co_await flush();  // the acknowledgement
            const auto self = shared_from_this();
            asio::co_spawn(executor, [self]() { return self->wait_for_stop(); }, asio::detached);
            continue;
        }
        if (!session_.attached) running_ = false;  // detached while it ran
        send(reply);
    }
}

asio::awaitable<void> Client::flush() {
    if (outgoing_.empty()) co_return;
    const std::string bytes = std::exchange(outgoing_, {});
    if (!co_await connection_.write(bytes)) closing_ = true;
}

void Client::send(const Reply& reply) {
    for (const std::string& packet : reply.before) send_packet(packet);
    if (reply.kind == Reply::Kind::packet) send_packet(reply.payload);
    if (reply.ends_acks) {
        acks_ = false;
        decoder_.ignore_checksums(true);
    }
    if (reply.closes) closing_ = true;
}

void Client::send_packet(std::string_view payload) {
    log("<-", payload);
    last_packet_.clear();
    rsp::append_packet(last_packet_, payload);
    outgoing_ += last_packet_;
}

void Client::log(std::string_view arrow, std::string_view payload) {
    if (spdlog::should_log(spdlog::level::trace)) spdlog::trace("{} {}", arrow, printable(payload));
    if (record_ != nullptr) *record_ << arrow << ' ' << printable(payload) << std::endl;
}

}  // namespace exo::stub
