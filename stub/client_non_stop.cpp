// When the guest is looked after in non-stop mode, where packets come at any time.
#include "stub/client.h"

#include <utility>

namespace exo::stub {
namespace {

// How long after a packet the next one is waited for, and how long a client that sends packet after packet
// may keep the guest from running.
constexpr std::chrono::milliseconds quiet_time{1};
constexpr std::chrono::milliseconds longest_stand{100};

}  // namespace

// A guest that stands for a packet stands for those too that follow at once.
bool Client::is_quiet() {
    if (Clock::now() >= last_dispatch_ + quiet_time) return true;
    if (std::exchange(quiet_timer_set_, true)) return false;
    quiet_timer_.expires_at(last_dispatch_ + quiet_time);
    quiet_timer_.async_wait([self = shared_from_this()](const auto&) {
        self->quiet_timer_set_ = false;
        self->advance();
    });
    return false;
}

// A client that is never quiet does not keep the guest from running.
bool Client::poll_is_overdue() const {
    return !frames_.empty() && session_.non_stop.watches() && Clock::now() > last_poll_ + longest_stand;
}

}  // namespace exo::stub
