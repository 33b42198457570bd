// The search for the guess that all witnesses agree with.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "backends/kvm/evidence.h"
#include "backends/kvm/guess.h"

namespace exo::kvm {

struct Found {
    Guess guess;
    Finding finding;           // of a survey through it
    std::size_t homeless = 0;  // page tables that lie in no memory that was found
};

class Search {
public:
    Search(std::span<const Block> blocks, const ReadVmm& read, Evidence& evidence);

    // Nothing if no guess leads even one walk to where KVM's leads.
    std::optional<Found> run();

private:
    // How hard a page's place in the monitor is looked for.
    enum class Effort : std::uint8_t { layouts, aligned, everywhere };
    using Accept = std::function<bool(const Guess&)>;

    // Looks for places of the tables that the claim's walks go through, until they come out as KVM's and
    // `accept` takes the guess.
    bool settle(const Guess& guess, std::size_t witness, const Claim& claim, int depth, const Accept& accept);
    // Offers `guess` with the page at `address` in each place where it may be, until `take` takes one.
    bool each_home(const Guess& guess, std::uint64_t address, Effort effort, const Accept& take);
    bool homes_by_layout(const Guess& guess, std::uint64_t address, const Accept& take);
    bool homes_by_steps(const Guess& guess, std::uint64_t address, std::uint64_t step, const Accept& take);
    bool home(const Guess& guess, const Block& block, std::uint64_t address, std::uint64_t host,
              const Accept& take);
    bool looks_like_table(std::uint64_t host);
    // With the place of one more of the tables that are missing.
    std::optional<Guess> widen(const Guess& guess, const Finding& finding, std::set<std::uint64_t>& tried);
    // From a guess that leads one witness' walks to all that the witnesses' tables tell. Whether it is good
    // enough to stop; the best is kept in `best_`.
    bool extend(Guess guess);

    std::span<const Block> blocks_;
    const ReadVmm* read_;
    Evidence* evidence_;
    Effort effort_ = Effort::layouts;
    std::size_t pages_left_;
    std::uint64_t address_limit_ = 0;  // no memory of the guest is expected above
    std::optional<Found> best_;
};

}  // namespace exo::kvm
