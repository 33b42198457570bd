// All that can wake a client's session, in one queue. Waiting on two sources with awaitable operators loses
// the second event when both are ready.
#pragma once

#include <deque>
#include <string>
#include <utility>
#include <variant>

#include <boost/asio/awaitable.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "rsp/frame.h"
#include "stub/reply.h"

namespace exo::stub {

namespace asio = boost::asio;

struct TargetStopped {
    Reply reply;
};
struct Disconnected {};

using Event = std::variant<rsp::Frame, TargetStopped, Disconnected>;

// One thread: the io context's.
class EventQueue {
public:
    explicit EventQueue(const asio::any_io_executor& executor)
        : wake_up_(executor, asio::steady_timer::time_point::max()) {}

    void push(Event event) {
        events_.push_back(std::move(event));
        wake_up_.cancel();
    }

    asio::awaitable<Event> pop() {
        while (events_.empty()) {
            boost::system::error_code cancelled;  // the wake-up
            co_await wake_up_.async_wait(asio::redirect_error(asio::use_awaitable, cancelled));
        }
        Event event = std::move(events_.front());
        events_.pop_front();
        co_return event;
    }

private:
    std::deque<Event> events_;
    asio::steady_timer wake_up_;  // never expires; cancelled by push
};

}  // namespace exo::stub
