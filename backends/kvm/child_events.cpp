#include "backends/kvm/child_events.h"

#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>

namespace exo::kvm {
namespace {

// A stop that is due in microseconds is not slept for.
constexpr std::chrono::microseconds spin_time{30};

int child_event = -1;

// Async-signal-safe.
extern "C" void note_child(int /*signal*/) {
    const int error = errno;
    const std::uint64_t one = 1;
    static_cast<void>(::write(child_event, &one, sizeof one) == 0);
    errno = error;
}

int event_of_children() {
    static const int event = [] {
        child_event = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        struct sigaction action{};
        action.sa_handler = note_child;
        action.sa_flags = SA_RESTART;
        ::sigaction(SIGCHLD, &action, nullptr);
        return child_event;
    }();
    return event;
}

}  // namespace

void watch_children() { event_of_children(); }

// A stop between the caller's last look and poll() has made the event readable: it is emptied only here.
bool wait_for_child(std::chrono::steady_clock::time_point deadline, int wake) {
    using Steady = std::chrono::steady_clock;
    std::array<pollfd, 2> events{pollfd{event_of_children(), POLLIN, 0}, pollfd{wake, POLLIN, 0}};
    const auto until_sleep = std::min(deadline, Steady::now() + spin_time);
    while (::poll(events.data(), events.size(), 0) == 0 && Steady::now() < until_sleep) ::sched_yield();
    if (events[0].revents == 0 && events[1].revents == 0) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Steady::now()).count();
        ::poll(events.data(), events.size(), static_cast<int>(std::clamp<std::int64_t>(left, 0, 60000)));
    }
    std::uint64_t count = 0;
    if (events[0].revents != 0) static_cast<void>(::read(events[0].fd, &count, sizeof count) == 0);
    return events[1].revents != 0;
}

}  // namespace exo::kvm
