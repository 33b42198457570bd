#include "backends/kvm/search.h"

#include <algorithm>
#include <array>
#include <utility>

#include "backends/kvm/layouts.h"

namespace exo::kvm {
namespace {

constexpr std::uint64_t page_bytes = 4096;
// Every monitor of the table of layouts starts its pieces at such addresses.
constexpr std::uint64_t usual_alignment = 1ULL << 20;

// Pages of the monitor that are looked at, in all: seconds at most.
constexpr std::size_t page_budget = 2'000'000;
constexpr int most_places = 8;  // that one claim may need
// Tables for which a place is looked for, one survey after the other: pieces, and those that are in no
// memory.
constexpr std::size_t most_extensions = 64;

// Bit 0 of an entry of 8 bytes, and of both entries of 4 bytes there.
constexpr std::uint64_t entry_present = 1ULL << 32 | 1;

// Where the monitor may have what lies above a split.
std::vector<std::uint64_t> above_splits(const Guess& guess, const Block& block) {
    std::vector<std::uint64_t> bases;
    for (const Split& split : known_splits()) {
        // Where it has what lies at the split, as far as is known by now; else by what is known to lie below
        // it already, in blocks of other NUMA nodes.
        const std::uint64_t below = split.low > guess.end_of(false) ? guess.end_of(false) : 0;
        if (const auto known = guess.host_of(split.low)) bases.push_back(*known);
        bases.push_back(block.start + split.low);
        bases.push_back(block.start + (split.low - below));
    }
    return bases;
}

// Where it may have what lies at 0, when the same block has what lies above a split.
std::vector<std::uint64_t> below_splits(const Guess& guess, const Block& block) {
    std::vector<std::uint64_t> bases;
    for (const Piece& piece : guess.pieces()) {
        if (!block.has(piece.host) || piece.start < four_gib) continue;
        for (const Split& split : known_splits()) bases.push_back(piece.host - split.low);
    }
    return bases;
}

}  // namespace

Search::Search(std::span<const Block> blocks, const ReadVmm& read, Evidence& evidence)
    : blocks_(blocks), read_(&read), evidence_(&evidence), pages_left_(page_budget) {
    std::uint64_t total = 0;
    for (const Block& block : blocks_) total += block.size();
    address_limit_ = known_high_starts().back() + total;
}

std::optional<Found> Search::run() {
    for (const Effort effort : {Effort::layouts, Effort::aligned, Effort::everywhere}) {
        effort_ = effort;
        for (std::size_t i = 0; i < evidence_->witnesses().size(); ++i) {
            if (!evidence_->translates(i)) continue;
            Claim claim{evidence_->mapped_addresses(i), 0, 0};
            if (claim.addresses.empty()) continue;
            if (settle({}, i, claim, 0, [&](const Guess& guess) { return extend(guess); })) return best_;
        }
        if (best_) return best_;
    }
    return std::nullopt;
}

bool Search::settle(const Guess& guess, std::size_t witness, const Claim& claim, int depth,
                    const Accept& accept) {
    const Finding finding = evidence_->check(guess, witness, claim);
    if (finding.contradicted) return false;
    if (!finding.missing.empty() && depth < most_places) {
        const auto further = [&](const Guess& next) {
            return settle(next, witness, claim, depth + 1, accept);
        };
        // Further places of one claim with one effort less, or each false place would have the whole search
        // again.
        const int effort = std::max(static_cast<int>(effort_) - (depth > 0 ? 1 : 0), 0);
        if (each_home(guess, finding.missing.front().address, static_cast<Effort>(effort), further))
            return true;
    }
    return finding.agreed > 0 && accept(guess);
}

bool Search::each_home(const Guess& guess, std::uint64_t address, Effort effort, const Accept& take) {
    if (address >= address_limit_) return false;
    if (homes_by_layout(guess, address, take)) return true;
    if (effort == Effort::layouts) return false;
    if (homes_by_steps(guess, address, usual_alignment, take)) return true;
    return effort == Effort::everywhere && homes_by_steps(guess, address, page_bytes, take);
}

bool Search::homes_by_layout(const Guess& guess, std::uint64_t address, const Accept& take) {
    const bool high = address >= four_gib;
    for (const Block& block : blocks_) {
        // Places in the monitor of what lies at `start`.
        const auto any_of = [&](std::span<const std::uint64_t> bases, std::uint64_t start) {
            return address >= start && std::ranges::any_of(bases, [&](std::uint64_t base) {
                       return home(guess, block, address, base + (address - start), take);
                   });
        };
        std::vector<std::uint64_t> bases = block.seams;
        bases.insert(bases.begin(), block.start);
        if (any_of(bases, guess.end_of(high))) return true;
        if (!high && any_of(bases, 0)) return true;
        if (high && any_of(bases, four_gib)) return true;
        const auto split_bases = high ? above_splits(guess, block) : below_splits(guess, block);
        if (!high && any_of(split_bases, 0)) return true;
        for (const std::uint64_t start : known_high_starts())
            if (high && any_of(split_bases, start)) return true;
    }
    return false;
}

bool Search::homes_by_steps(const Guess& guess, std::uint64_t address, std::uint64_t step,
                            const Accept& take) {
    for (const Block& block : blocks_) {
        // Memory of the guest begins or ends where the block does, or else, where other memory of the monitor
        // is in the same mapping, at such an address.
        const std::set<std::uint64_t> firsts{block.start + address % step,
                                             block.start + (block.size() + address) % step,
                                             block.start + (address - block.start) % step};
        for (const std::uint64_t first : firsts)
            for (std::uint64_t host = first; host < block.end; host += step)
                if (home(guess, block, address, host, take)) return true;
    }
    return false;
}

bool Search::home(const Guess& guess, const Block& block, std::uint64_t address, std::uint64_t host,
                  const Accept& take) {
    if (!block.has(host) || pages_left_ == 0 || !looks_like_table(host)) return false;
    for (const std::uint64_t first : known_high_starts()) {
        if (first > four_gib && first > address) continue;
        const auto next = guess.with(block, address, host, address < four_gib ? 0 : first);
        if (!next) continue;
        if (take(*next)) return true;
    }
    return false;
}

// Cheap, since most pages are none: whether there is a present entry.
bool Search::looks_like_table(std::uint64_t host) {
    --pages_left_;
    std::array<std::uint64_t, page_bytes / sizeof(std::uint64_t)> entries{};
    const std::uint64_t start = host & ~(page_bytes - 1);
    if ((*read_)(start, std::as_writable_bytes(std::span{entries})) != page_bytes) return false;
    return std::ranges::any_of(entries, [](std::uint64_t entry) { return (entry & entry_present) != 0; });
}

std::optional<Guess> Search::widen(const Guess& guess, const Finding& finding,
                                   std::set<std::uint64_t>& tried) {
    // Tables with leaves first: their place is told by nothing but themselves.
    auto in_order = finding.missing;
    std::ranges::sort(in_order, {}, &MissingTable::window_size);
    for (const MissingTable& missing : in_order) {
        if (tried.size() >= most_extensions) return std::nullopt;
        if (!tried.insert(missing.address).second) continue;
        const Claim claim{{}, missing.window, missing.window_size};
        std::optional<Guess> wider;
        const auto take = [&](const Guess& next) {
            if (evidence_->survey(next).contradicted) return false;
            wider = next;
            return true;
        };
        if (settle(guess, missing.witness, claim, 0, take)) return wider;
    }
    return std::nullopt;
}

bool Search::extend(Guess guess) {
    // What is known by now makes a search by steps short, and a false place contradict itself at once.
    const Effort before = std::exchange(effort_, std::max(effort_, Effort::aligned));
    std::set<std::uint64_t> tried;
    Finding finding = evidence_->survey(guess);
    while (!finding.contradicted) {
        const auto wider = widen(guess, finding, tried);
        if (!wider) break;
        guess = *wider;
        finding = evidence_->survey(guess);
    }
    effort_ = before;
    if (finding.contradicted) return false;
    if (!best_ || finding.confirmed.size() > best_->finding.confirmed.size()) best_ = Found{guess, finding};
    // A root alone can be mistaken for that of another process, which has the same kernel half.
    return std::ranges::all_of(guess.pieces(), [&](const Piece& piece) {
        const auto first = finding.confirmed.lower_bound(piece.start);
        const auto end = finding.confirmed.lower_bound(piece.end());
        return std::distance(first, end) != 1;
    });
}

}  // namespace exo::kvm
