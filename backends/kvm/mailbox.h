// System calls of a VMM's thread that cost no stop of it: the thread waits in the springboard for requests in
// memory that exogdb shares with it, carries them out and tells so, by futex(2). A ptrace stop takes several
// times as long, and a system call made that way needs two.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>

namespace exo::kvm {

struct CallRequest {
    // The result of one that is not finished; no system call has it (they fail with -4095 at least).
    static constexpr std::int64_t unfinished = INT64_MIN;

    std::int64_t number = 0;
    std::uint64_t a = 0, b = 0, c = 0;
    std::int64_t result = unfinished;  // a negative errno where it fails
};

// As the springboard's code knows it (springboard.cpp).
struct Mailbox {
    std::uint32_t posted = 0;  // counts the posts
    std::uint32_t done = 0;    // the post that was carried out last
    std::uint32_t count = 0;   // requests of this post, one at least
    std::uint32_t asleep = 0;  // 1: the thread waits, and has to be woken
    std::array<CallRequest, 2> calls{};
};

// None may be under way. As many as the mailbox has room for, made in their order.
void post(Mailbox& box, std::span<const CallRequest> calls);
bool is_done(const Mailbox& box);
// Whether it is by then.
bool wait_until_done(const Mailbox& box, std::chrono::steady_clock::time_point deadline);
// Until one of them is, or for `limit`. At most `most_awaited`; one at least.
inline constexpr std::size_t most_awaited = 128;  // FUTEX_WAITV_MAX
void wait_until_any_done(std::span<const Mailbox* const> boxes, std::chrono::microseconds limit);

}  // namespace exo::kvm
