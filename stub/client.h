// One connected debugger: frames, acknowledgements, and the turn-taking between it and the running guest.
#pragma once

#include <deque>
#include <fstream>
#include <memory>
#include <string>

#include <boost/asio/awaitable.hpp>

#include "rsp/frame.h"
#include "stub/connection.h"
#include "stub/event_queue.h"
#include "stub/session.h"
#include "stub/target_thread.h"

namespace exo::stub {

class Client : public std::enable_shared_from_this<Client> {
public:
    // `record` may be null: a transcript of all packets goes there.
    Client(Connection connection, Machine& machine, TargetThread& target_thread, SessionOptions options,
           const asio::any_io_executor& executor, std::ostream* record);

    // Until the client is gone; the guest is then as it was found. True if the guest itself is gone.
    asio::awaitable<bool> run();
    // Ends run(), as if the client had gone.
    void stop();

private:
    // An expression with co_await has no temporaries with destructors (an argument by value, a lambda that
    // holds a shared_ptr), and a form that works is not varied without a look: GCC 12.2 was seen to lay out
    // such a coroutine's frame differently in the part that starts it and in the part that runs it, which
    // crashes.
    asio::awaitable<void> read();
    asio::awaitable<void> wait_for_stop();
    asio::awaitable<void> dispatch_packets();
    asio::awaitable<void> flush();
    void handle(rsp::Frame frame);
    void send(const Reply& reply);
    void send_packet(std::string_view payload);
    void log(std::string_view arrow, std::string_view payload);

    Connection connection_;
    TargetThread& target_thread_;
    Session session_;
    rsp::FrameDecoder decoder_;
    EventQueue events_;
    std::ostream* record_;
    bool acks_ = true;
    bool running_ = false;  // the client waits for a stop reply
    bool closing_ = false;
    bool guest_gone_ = false;
    std::string last_packet_;          // for a nack
    std::string outgoing_;             // to be written in one go
    std::deque<std::string> packets_;  // to be dispatched; while the guest runs, those that can wait do
};

}  // namespace exo::stub
