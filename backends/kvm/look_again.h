// When guest memory is worth looking for again. A guest that boots shows more of it as it goes on, and a look
// is a search: so only what has changed since makes one worth it, and only as long as something is open.
#pragma once

#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

namespace exo::kvm {

// What a look would go by, for each vCPU: the root of its page tables, or where it executes without any.
using Viewpoints = std::vector<std::uint64_t>;

class LookAgain {
public:
    using Clock = std::chrono::steady_clock;
    // Looks take no more than one part in so many of the time.
    static constexpr int share = 20;

    // `open`: some memory was not found, or what was found is not verified.
    void looked(Viewpoints from, bool open, Clock::time_point begin, Clock::time_point end) {
        from_ = std::move(from);
        open_ = open;
        next_ = end + share * (end - begin);
    }
    [[nodiscard]] bool open() const { return open_; }
    [[nodiscard]] bool worth_it(const Viewpoints& from, Clock::time_point now) const {
        return open_ && now >= next_ && from != from_;
    }

private:
    Viewpoints from_;
    bool open_ = false;
    Clock::time_point next_;
};

}  // namespace exo::kvm
