#include "backends/kvm/child_events.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <ctime>

namespace exo::kvm {
namespace {

constexpr std::int64_t in_second = 1'000'000'000;
constexpr std::size_t most_others = 2;
constexpr long most_nanoseconds = 10'000'000;  // of one wait for the signal alone

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

sigset_t only_children() {
    sigset_t children;
    ::sigemptyset(&children);
    ::sigaddset(&children, SIGCHLD);
    return children;
}

// The signal stays pending where it comes before the wait does; a thread of somebody's that does not block it
// may have it instead.
void await_signal(timespec limit) {
    if (limit.tv_sec > 0 || limit.tv_nsec > most_nanoseconds) limit = {0, most_nanoseconds};
    const sigset_t children = only_children();
    ::sigtimedwait(&children, nullptr, &limit);
}

}  // namespace

void watch_children() {
    event_of_children();
    leave_children_to_others();
}

void leave_children_to_others() {
    const sigset_t children = only_children();
    ::pthread_sigmask(SIG_BLOCK, &children, nullptr);
}

// A stop between the caller's last look and ppoll() has made the event readable, or its signal is pending:
// the event is emptied only here.
void wait_for_child(std::chrono::steady_clock::time_point deadline, std::span<pollfd> others) {
    const auto left = std::max<std::int64_t>(
        std::chrono::nanoseconds{deadline - std::chrono::steady_clock::now()}.count(), 0);
    const timespec limit{left / in_second, left % in_second};
    if (others.empty()) return await_signal(limit);
    std::array<pollfd, 1 + most_others> events{pollfd{event_of_children(), POLLIN, 0}};
    const std::size_t count = std::min(others.size(), most_others);
    std::ranges::copy(others.first(count), events.begin() + 1);
    sigset_t mask;
    ::pthread_sigmask(SIG_BLOCK, nullptr, &mask);
    ::sigdelset(&mask, SIGCHLD);
    // Interrupted by the signal it tells of none.
    if (::ppoll(events.data(), 1 + count, &limit, &mask) < 0)
        for (auto& event : events) event.revents = 0;
    std::ranges::copy(std::span{events}.subspan(1, count), others.begin());
    std::uint64_t number = 0;
    static_cast<void>(::read(events[0].fd, &number, sizeof number) == 0);
}

}  // namespace exo::kvm
