// One client's byte stream: a TCP or unix socket, or stdin and stdout.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

namespace exo::stub {

namespace asio = boost::asio;

class Connection {
public:
    struct StandardStreams {
        asio::posix::stream_descriptor input;
        asio::posix::stream_descriptor output;
    };
    using Socket = asio::generic::stream_protocol::socket;

    explicit Connection(Socket socket) : stream_(std::move(socket)) {}
    explicit Connection(StandardStreams streams) : stream_(std::move(streams)) {}

    // The count of bytes read; 0 when the client is gone, however it went.
    asio::awaitable<std::size_t> read_some(char* into, std::size_t size);
    // False when the client is gone.
    asio::awaitable<bool> write(std::string_view bytes);
    void close();

private:
    std::variant<Socket, StandardStreams> stream_;
};

}  // namespace exo::stub
