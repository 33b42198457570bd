// One client's byte stream: a TCP or unix socket, or stdin and stdout.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>
#include <variant>

#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include "stub/lender.h"

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

    // One of each at a time; what they point to stays where it is until `done`, which is not called from
    // here. `done` gets the count of bytes read; 0 when the client is gone, however it went.
    void read_some(char* into, std::size_t size, std::function<void(std::size_t)> done);
    // What is there already, without waiting; 0 if nothing is, and when only read_some() can tell. Not while
    // that is under way.
    std::size_t read_now(char* into, std::size_t size);
    // A descriptor that can be read when there are bytes for read_some(), and whether the first of them, but
    // for acknowledgements, is `byte`; -1 where only read_some() can tell. From any thread.
    [[nodiscard]] int descriptor();
    [[nodiscard]] static bool is_next(int descriptor, char byte);
    // As many as can be sent without waiting; fewer also when the client is gone, which write() tells. Not
    // while that is under way.
    std::size_t write_now(std::string_view bytes);
    // For long replies without a copy, if this connection allows it. Not while write() is under way.
    Lender* lender(std::size_t room);
    // Of all of `bytes`. `done` gets false when the client is gone.
    void write(std::string_view bytes, std::function<void(bool)> done);
    // What was written before arrives. A read or write that is under way is then done with, in vain.
    void close();

private:
    std::variant<Socket, StandardStreams> stream_;
    std::unique_ptr<Lender> lender_;
    bool asked_for_lender_ = false;
};

}  // namespace exo::stub
