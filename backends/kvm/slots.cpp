#include "backends/kvm/slots.h"

#include <algorithm>
#include <array>
#include <functional>
#include <set>

#include "backends/kvm/blocks.h"
#include "backends/kvm/evidence.h"
#include "backends/kvm/landmarks.h"
#include "backends/kvm/layouts.h"
#include "backends/kvm/search.h"

namespace exo::kvm {
namespace {

using Kind = MemoryRegion::Kind;

constexpr std::uint64_t mib = 1ULL << 20;
constexpr const char* verified_name = "ram";
constexpr const char* unverified_name = "ram, not verified";

// A PC shows its video memory at 0xa0000, and ROM or RAM, as its firmware says, from 0xc0000 to 1 MiB: what
// lies there is not what a mapping at 0 has there.
constexpr std::uint64_t video_start = 0xa0000;
constexpr std::uint64_t firmware_start = 0xc0000;
constexpr std::uint64_t legacy_end = 0x100000;

// Below 4 GiB no monitor of the table has memory from here on: interrupt controllers, flash.
constexpr std::uint64_t devices_start = 0xe000'0000;

// A block of the monitor's that is smaller is not worth a note: its own heap, video memory, firmware.
constexpr std::uint64_t notable = 64 * mib;

std::string in_mib(std::uint64_t bytes) { return std::to_string(bytes / mib) + " MiB"; }

std::string range_of(std::uint64_t start, std::uint64_t end) { return hex(start) + " to " + hex(end - 1); }

// Of a block of which only what lies at 4 GiB was met, the part before that, which fills what is left below
// the split: what firmware left there tells where it begins, else a known split does.
Guess with_lower_part(const Guess& guess, const Block& block, const ReadVmm& read) {
    const Piece* high = nullptr;
    for (const Piece& piece : guess.pieces()) {
        if (!block.has(piece.host)) continue;
        if (piece.start < four_gib) return guess;
        if (high == nullptr) high = &piece;
    }
    const auto starts = known_high_starts();
    if (high == nullptr || std::ranges::find(starts, high->start) == starts.end()) return guess;
    const std::uint64_t before = high->host - block.start;
    const std::uint64_t low_end = guess.end_of(false);
    const auto with = [&](std::uint64_t size) {
        return guess.with(block, low_end, high->host - size, low_end);
    };
    std::vector<std::uint64_t> sizes;
    for (const Split& split : known_splits())
        if (split.low > low_end && split.low < four_gib && split.low - low_end <= before)
            sizes.push_back(split.low - low_end);
    std::ranges::sort(sizes, std::greater{});
    if (low_end == 0) {
        auto to_try = sizes;
        if (before > 0 && before < four_gib) to_try.push_back(before);
        // Other memory of the monitor may lie before it in the same mapping; splits are at whole MiB.
        for (std::uint64_t size = before / mib * mib; size > 0 && before - size < notable; size -= mib)
            if (size < four_gib) to_try.push_back(size);
        for (const std::uint64_t size : to_try)
            if (const auto next = with(size); next && !landmarks(*next, read).empty()) return *next;
    }
    if (sizes.empty() || before - sizes.front() >= notable) return guess;
    return with(sizes.front()).value_or(guess);
}

// Slots of a guess, and what is to be said of them.
class Report {
public:
    Report(std::span<const Block> blocks, const ReadVmm& read, Found found)
        : blocks_(blocks), found_(std::move(found)), seen_(found_.finding.confirmed) {
        for (const Block& block : blocks_) found_.guess = with_lower_part(found_.guess, block, read);
        seen_.merge(landmarks(found_.guess, read));
    }

    Slots take() && {
        for (const Piece& piece : found_.guess.pieces()) add(piece);
        note_unplaced();
        if (const auto count = found_.finding.missing.size(); count > 0)
            result_.notes.push_back(std::to_string(count) +
                                    " page tables of the guest lie where no memory was found");
        result_.confirmed = found_.finding.confirmed.size();
        return std::move(result_);
    }

private:
    [[nodiscard]] std::optional<std::uint64_t> last_seen(std::uint64_t start, std::uint64_t end) const {
        const auto after = seen_.lower_bound(end);
        if (after == seen_.begin() || *std::prev(after) < start) return std::nullopt;
        return *std::prev(after);
    }

    [[nodiscard]] bool has_table(std::uint64_t start, std::uint64_t end) const {
        const auto& tables = found_.finding.confirmed;
        const auto first = tables.lower_bound(start);
        return first != tables.end() && *first < end;
    }

    void slot(std::uint64_t start, std::uint64_t end, const Piece& piece, Kind kind, const char* name) {
        if (start >= end) return;
        result_.slots.push_back(
            {PhysicalAddress{start}, end - start, piece.host + (start - piece.start), kind, name});
    }

    void unverified(std::uint64_t start, std::uint64_t end, const Piece& piece) {
        if (start >= end) return;
        slot(start, end, piece, Kind::ram, unverified_name);
        result_.notes.push_back(
            "physical " + range_of(start, end) +
            " is not verified: neither page tables nor tables of firmware were met there");
    }

    // Where the piece may end earlier than its mapping does, since a layout that is in use says so and
    // nothing that was seen does not.
    [[nodiscard]] std::uint64_t certain_end(const Piece& piece, std::uint64_t last) const {
        if (piece.start >= four_gib) return piece.end();
        const auto follows = [&](const Piece& other) { return other.host == piece.host_end(); };
        if (std::ranges::any_of(found_.guess.pieces(), follows)) return piece.end();
        std::uint64_t size = piece.end();
        for (const Block& block : blocks_)
            if (block.has(piece.host)) size = block.end - piece.host + piece.start;
        const std::uint64_t split = next_split(last, size);
        return split == 0 ? piece.end() : std::min(split, piece.end());
    }

    void add(const Piece& piece) {
        std::uint64_t end = piece.end();
        // Other memory of the monitor may follow in the same mapping; that is seldom a whole MiB.
        if (piece.size >= notable) end = end / mib * mib;
        const auto last = last_seen(piece.start, end);
        // Where nothing is known, or where the piece cannot be that long, no more than every layout agrees
        // upon.
        const std::uint64_t agreed = std::min(end, certain_end(piece, last.value_or(0)));
        const bool too_long = piece.start < devices_start && end > devices_start && end <= four_gib &&
                              !last_seen(devices_start, four_gib);
        if (!last || too_long) end = agreed;
        const std::uint64_t sure = last ? agreed : piece.start;
        std::uint64_t start = piece.start;
        if (start < legacy_end && !has_table(video_start, legacy_end)) {
            slot(start, std::min(end, video_start), piece, Kind::ram, last ? verified_name : unverified_name);
            // Read only: where it is ROM, a write must not go through.
            if (last)
                slot(std::max(start, firmware_start), std::min(end, legacy_end), piece, Kind::rom,
                     unverified_name);
            start = std::max(start, legacy_end);
        }
        slot(start, sure, piece, Kind::ram, verified_name);
        unverified(std::max(start, sure), end, piece);
    }

    void note_unplaced() {
        for (const Block& block : blocks_) {
            std::uint64_t left = block.size();
            for (const Slot& slot : result_.slots)
                if (block.has(slot.host)) left -= slot.size;
            if (left < notable) continue;
            result_.notes.push_back(in_mib(left) + " of the monitor's memory at " + hex(block.start) +
                                    " may be the guest's, but where it lies in the guest is not known");
        }
    }

    std::span<const Block> blocks_;
    Found found_;
    std::set<std::uint64_t> seen_;  // guest addresses at which there is what must be there
    Slots result_;
};

bool has_content(const ReadVmm& read, std::uint64_t host) {
    std::array<std::byte, 16> bytes{};
    const auto is = [&](std::byte value) {
        return std::ranges::all_of(bytes, [&](std::byte b) { return b == value; });
    };
    return read(host, bytes) == bytes.size() && !is(std::byte{0}) && !is(std::byte{0xff});
}

Found at(const Block& block, std::uint64_t start) { return Found{*Guess{}.with(block, 0, start), {}}; }

// The kernel may have merged guest memory with what the monitor has before it (a thread's stack, of 8 MiB
// with glibc: mm/vma.c, vma_merge). QEMU's begins at a huge page (QEMU_VMALLOC_ALIGN).
std::vector<std::uint64_t> possible_starts(const Block& block) {
    constexpr std::uint64_t alignment = 2 * mib;
    constexpr std::uint64_t most_before = 64 * mib;
    std::vector<std::uint64_t> starts{block.start};
    starts.insert(starts.end(), block.seams.begin(), block.seams.end());
    const std::uint64_t end = block.start + std::min(block.size(), most_before);
    for (auto start = (block.start / alignment + 1) * alignment; start < end; start += alignment)
        starts.push_back(start);
    return starts;
}

// No vCPU translates addresses: firmware, or a small guest. There are no walks; all that can be checked is
// that there is code where code is executed.
Result<Slots> without_paging(std::span<const Block> blocks, const ReadVmm& read,
                             std::span<const Witness> witnesses) {
    const auto has_landmarks = [&](const Found& found) { return !landmarks(found.guess, read).empty(); };
    for (const Block& block : blocks) {
        const Found found = at(block, block.start);
        if (has_landmarks(found)) return Report{blocks, read, found}.take();
    }
    for (const Block& block : blocks) {
        const auto starts = possible_starts(block);
        const auto start = std::ranges::find_if(starts, [&](std::uint64_t host) {
            return std::ranges::any_of(witnesses, [&](const Witness& witness) {
                return !witness.addresses.empty() && witness.addresses.front() < block.end - host &&
                       has_content(read, host + witness.addresses.front());
            });
        });
        if (start == starts.end()) continue;
        const Found found = at(block, *start);
        Slots result = Report{blocks, read, found}.take();
        if (has_landmarks(found)) return result;
        result.notes.insert(result.notes.begin(),
                            "no vCPU has paging on: that guest memory begins where the monitor's largest "
                            "mapping has code that the vCPU executes is not verified");
        return result;
    }
    return fail(Errc::not_found,
                "guest memory: no vCPU has paging on, and no memory of the monitor has code where "
                "one executes it; it is looked for again when the guest has run");
}

}  // namespace

Result<Slots> find_slots(std::span<const Mapping> mappings, const ReadVmm& read,
                         std::span<const Witness> witnesses) {
    const auto blocks = ram_blocks(mappings);
    if (blocks.empty())
        return fail(Errc::not_found, "guest memory: the monitor has no memory that may be it");
    Evidence evidence{witnesses, read};
    bool translating = false;
    for (std::size_t i = 0; i < witnesses.size(); ++i) translating = translating || evidence.translates(i);
    if (!translating) return without_paging(blocks, read, witnesses);
    const auto found = Search{blocks, read, evidence}.run();
    if (found) return Report{blocks, read, *found}.take();
    if (evidence.error()) return fail(Error{*evidence.error()}.with_context("guest memory"));
    std::uint64_t total = 0;
    for (const Block& block : blocks) total += block.size();
    return fail(Errc::not_found,
                "guest memory: in none of " + std::to_string(blocks.size()) + " mappings (" + in_mib(total) +
                    ") of the monitor do the guest's page tables lead where KVM's walks lead");
}

}  // namespace exo::kvm
