#include "stub/client.h"

#include <array>
#include <chrono>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/this_coro.hpp>
#include <spdlog/spdlog.h>

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
            co_await handle(std::move(*frame));
        } else if (auto* stopped = std::get_if<TargetStopped>(&event)) {
            running_ = false;
            co_await send(std::move(stopped->reply));
            while (!deferred_.empty() && !running_ && !closing_) {
                std::string payload = std::move(deferred_.front());
                deferred_.pop_front();
                co_await dispatch(std::move(payload));
            }
        } else {
            closing_ = true;
        }
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

asio::awaitable<void> Client::handle(rsp::Frame frame) {
    using Kind = rsp::Frame::Kind;
    switch (frame.kind) {
        case Kind::interrupt:
            log("->", "^C");
            // One that arrives after the stop it asked for has no reply to wait for.
            if (running_) session_.interrupt();
            break;
        case Kind::nack:
            if (acks_ && !last_packet_.empty()) co_await connection_.write(last_packet_);
            break;
        case Kind::bad_checksum:
            if (acks_) co_await connection_.write("-");
            break;
        case Kind::too_long:
            spdlog::warn("a packet longer than PacketSize ({} bytes) was dropped", session_.options.packet_size);
            if (acks_) co_await connection_.write("+");
            co_await send_packet(render_error({Errc::bad_request, "packet longer than PacketSize"},
                                              {.text_allowed = session_.client.error_message}));
            break;
        case Kind::packet:
            if (acks_) co_await connection_.write("+");
            if (running_ && Session::waits_for_stop(frame.payload)) {
                deferred_.push_back(std::move(frame.payload));
            } else {
                co_await dispatch(std::move(frame.payload));
            }
            break;
        case Kind::ack:
        case Kind::notification: break;
    }
}

asio::awaitable<void> Client::dispatch(std::string payload) {
    log("->", payload);
    const bool was_running = running_;
    Reply reply = co_await target_thread_.run([&] { return session_.dispatch(payload); });
    if (reply.kind == Reply::Kind::resumed) {
        running_ = true;
        const auto self = shared_from_this();
        asio::co_spawn(co_await asio::this_coro::executor, [self]() { return self->wait_for_stop(); },
                       asio::detached);
        co_return;
    }
    if (was_running && !session_.attached) running_ = false;  // detached while it ran
    co_await send(std::move(reply));
}

asio::awaitable<void> Client::send(Reply reply) {
    for (std::string& packet : reply.before) co_await send_packet(std::move(packet));
    if (reply.kind == Reply::Kind::packet) co_await send_packet(std::move(reply.payload));
    if (reply.ends_acks) {
        acks_ = false;
        decoder_.ignore_checksums(true);
    }
    if (reply.closes) closing_ = true;
}

asio::awaitable<void> Client::send_packet(std::string payload) {
    log("<-", payload);
    last_packet_.clear();
    rsp::append_packet(last_packet_, payload);
    if (!co_await connection_.write(last_packet_)) closing_ = true;
}

void Client::log(std::string_view arrow, std::string_view payload) {
    if (spdlog::should_log(spdlog::level::trace)) spdlog::trace("{} {}", arrow, printable(payload));
    if (record_ != nullptr) *record_ << arrow << ' ' << printable(payload) << std::endl;
}

}  // namespace exo::stub
