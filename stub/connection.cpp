#include "stub/connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>

#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>

namespace exo::stub {

using boost::system::error_code;

void Connection::read_some(char* into, std::size_t size, std::function<void(std::size_t)> done) {
    const auto buffer = asio::buffer(into, size);
    auto handler = [done = std::move(done)](const error_code& error, std::size_t count) {
        done(error ? 0 : count);
    };
    if (auto* socket = std::get_if<Socket>(&stream_)) {
        socket->async_read_some(buffer, std::move(handler));
    } else {
        std::get<StandardStreams>(stream_).input.async_read_some(buffer, std::move(handler));
    }
}

std::size_t Connection::read_now(char* into, std::size_t size) {
    auto* socket = std::get_if<Socket>(&stream_);
    if (socket == nullptr) return 0;
    const ssize_t count = ::recv(socket->native_handle(), into, size, MSG_DONTWAIT);
    return count > 0 ? static_cast<std::size_t>(count) : 0;
}

int Connection::descriptor() {
    auto* socket = std::get_if<Socket>(&stream_);
    return socket != nullptr ? socket->native_handle() : -1;
}

bool Connection::is_next(int descriptor, char byte) {
    std::array<char, 16> bytes{};
    const ssize_t count = ::recv(descriptor, bytes.data(), bytes.size(), MSG_PEEK | MSG_DONTWAIT);
    const std::string_view seen{bytes.data(), static_cast<std::size_t>(std::max<ssize_t>(count, 0))};
    const auto first = seen.find_first_not_of('+');
    return first != std::string_view::npos && seen[first] == byte;
}

std::size_t Connection::write_now(std::string_view bytes) {
    auto* socket = std::get_if<Socket>(&stream_);
    if (socket == nullptr) return 0;
    const ssize_t count =
        ::send(socket->native_handle(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    return count > 0 ? static_cast<std::size_t>(count) : 0;
}

Lender* Connection::lender(std::size_t room) {
    auto* socket = std::get_if<Socket>(&stream_);
    if (socket == nullptr) return nullptr;
    if (!std::exchange(asked_for_lender_, true)) {
        error_code error;
        socket->native_non_blocking(true, error);  // splice() has no flag for it
        if (!error) lender_ = Lender::create(socket->native_handle(), room);
    }
    return lender_.get();
}

void Connection::write(std::string_view bytes, std::function<void(bool)> done) {
    const auto buffer = asio::buffer(bytes.data(), bytes.size());
    auto handler = [done = std::move(done)](const error_code& error, std::size_t) { done(!error); };
    if (auto* socket = std::get_if<Socket>(&stream_)) {
        asio::async_write(*socket, buffer, std::move(handler));
    } else {
        asio::async_write(std::get<StandardStreams>(stream_).output, buffer, std::move(handler));
    }
}

void Connection::close() {
    error_code ignored;
    if (auto* socket = std::get_if<Socket>(&stream_)) {
        // Shut down first, so that what was written last arrives.
        socket->shutdown(Socket::shutdown_both, ignored);
        socket->close(ignored);
    } else {
        auto& streams = std::get<StandardStreams>(stream_);
        streams.input.close(ignored);
        streams.output.close(ignored);
    }
}

}  // namespace exo::stub
