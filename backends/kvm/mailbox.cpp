#include "backends/kvm/mailbox.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <ctime>

namespace exo::kvm {
namespace {

using Steady = std::chrono::steady_clock;

// What is done in microseconds is not slept for.
constexpr std::chrono::microseconds spin_before_sleep{200};
// Of several, whose threads may want the processor that this one spins on.
constexpr std::chrono::microseconds spin_for_several{20};
// For one of them, where the kernel cannot wait for several (before 5.16).
constexpr std::chrono::microseconds slice_of_several{100};
constexpr std::int64_t second = 1'000'000'000;

// Across processes the futex is the page and the offset in it: without FUTEX_PRIVATE_FLAG.
void futex(std::uint32_t& word, int operation, std::uint32_t value, const timespec* timeout) {
    ::syscall(SYS_futex, &word, operation, value, timeout, nullptr, 0);
}

std::uint32_t done_of(const Mailbox& box) {
    return std::atomic_ref{const_cast<std::uint32_t&>(box.done)}.load(std::memory_order_acquire);
}

}  // namespace

void post(Mailbox& box, std::span<const CallRequest> calls) {
    std::ranges::copy(calls, box.calls.begin());
    box.count = static_cast<std::uint32_t>(calls.size());
    // Either the thread sees what is posted before it waits, or this sees that it does.
    std::atomic_ref{box.posted}.store(box.done + 1, std::memory_order_seq_cst);
    if (std::atomic_ref{box.asleep}.load(std::memory_order_seq_cst) != 0)
        futex(box.posted, FUTEX_WAKE, 1, nullptr);
}

bool is_done(const Mailbox& box) { return done_of(box) == box.posted; }

bool wait_until_done(const Mailbox& box, Steady::time_point deadline) {
    const auto until_sleep = std::min(deadline, Steady::now() + spin_before_sleep);
    while (!is_done(box) && Steady::now() < until_sleep) ::sched_yield();
    for (;;) {
        const auto seen = done_of(box);
        if (seen == box.posted) return true;
        const auto left = std::chrono::nanoseconds{deadline - Steady::now()}.count();
        if (left <= 0) return false;
        const timespec timeout{left / second, left % second};
        futex(const_cast<std::uint32_t&>(box.done), FUTEX_WAIT, seen, &timeout);
    }
}

void wait_until_any_done(std::span<const Mailbox* const> boxes, std::chrono::microseconds limit) {
    const auto any_is_done = [&] {
        return std::ranges::any_of(boxes, [](const Mailbox* box) { return is_done(*box); });
    };
    const auto until_sleep = Steady::now() + std::min(limit, spin_for_several);
    while (!any_is_done() && Steady::now() < until_sleep) ::sched_yield();
    std::array<futex_waitv, most_awaited> waited{};
    const std::size_t count = std::min(boxes.size(), waited.size());
    for (std::size_t i = 0; i < count; ++i) {
        const auto seen = done_of(*boxes[i]);
        if (seen == boxes[i]->posted) return;
        waited.at(i) = {
            .val = seen, .uaddr = reinterpret_cast<std::uintptr_t>(&boxes[i]->done), .flags = FUTEX_32};
    }
    // Its time is absolute, of that clock.
    const auto until = (Steady::now().time_since_epoch() + std::chrono::nanoseconds{limit}).count();
    const timespec timeout{until / second, until % second};
    if (::syscall(SYS_futex_waitv, waited.data(), count, 0, &timeout, CLOCK_MONOTONIC) < 0 && errno == ENOSYS)
        static_cast<void>(wait_until_done(*boxes.front(), Steady::now() + std::min(limit, slice_of_several)));
}

}  // namespace exo::kvm
