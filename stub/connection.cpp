#include "stub/connection.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

namespace exo::stub {

asio::awaitable<std::size_t> Connection::read_some(char* into, std::size_t size) {
    boost::system::error_code error;
    const auto buffer = asio::buffer(into, size);
    auto token = asio::redirect_error(asio::use_awaitable, error);
    std::size_t count = 0;
    if (auto* socket = std::get_if<Socket>(&stream_)) {
        count = co_await socket->async_read_some(buffer, token);
    } else {
        count = co_await std::get<StandardStreams>(stream_).input.async_read_some(buffer, token);
    }
    co_return error ? 0 : count;
}

asio::awaitable<bool> Connection::write(std::string_view bytes) {
    boost::system::error_code error;
    const auto buffer = asio::buffer(bytes.data(), bytes.size());
    auto token = asio::redirect_error(asio::use_awaitable, error);
    if (auto* socket = std::get_if<Socket>(&stream_)) {
        co_await asio::async_write(*socket, buffer, token);
    } else {
        co_await asio::async_write(std::get<StandardStreams>(stream_).output, buffer, token);
    }
    co_return !error;
}

void Connection::close() {
    boost::system::error_code ignored;
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
