#include "backends/kvm/guess.h"

#include <algorithm>
#include <bit>

namespace exo::kvm {
namespace {

constexpr std::uint64_t address_limit = 1ULL << 52;  // of physical addresses on x86-64

// A range by its start, in the guest or in the monitor: what fit() is about.
struct Extent {
    std::uint64_t start;
    std::uint64_t size;
    [[nodiscard]] std::uint64_t end() const { return start + size; }
};

// Makes `old` and `fresh`, which holds `page`, disjoint; `old_yields` where either may be the one that goes
// further than it should. False if they cannot be.
bool fit(Extent& old, Extent& fresh, std::uint64_t page, bool old_yields) {
    if (old.end() <= fresh.start || fresh.end() <= old.start) return true;
    if (old.start > page) {
        fresh.size = old.start - fresh.start;
    } else if (old.start < fresh.start && (old_yields || old.end() > page)) {
        old.size = fresh.start - old.start;
    } else if (old.end() > page) {
        return false;
    } else {
        fresh = {old.end(), fresh.end() - old.end()};
    }
    return true;
}

// The same in both of its places; what changes in the one changes in the other.
bool fit(Piece& old, Piece& fresh, std::uint64_t address, std::uint64_t host) {
    Extent old_host{old.host, old.size};
    Extent fresh_host{fresh.host, fresh.size};
    // A piece is taken to go on to the end of its block until another is seen to begin there.
    if (!fit(old_host, fresh_host, host, true)) return false;
    old.size = old_host.size;
    fresh = {fresh.start + (fresh_host.start - fresh.host), fresh_host.size, fresh_host.start};
    Extent old_guest{old.start, old.size};
    Extent fresh_guest{fresh.start, fresh.size};
    // Guest memory begins at rounder addresses than a mapping into which the kernel merged a stack.
    const bool rounder = std::countr_zero(fresh.start) >= std::countr_zero(old.end());
    if (!fit(old_guest, fresh_guest, address, rounder)) return false;
    old.size = old_guest.size;
    fresh = {fresh_guest.start, fresh_guest.size, fresh.host + (fresh_guest.start - fresh.start)};
    return true;
}

}  // namespace

const Piece* Guess::find(std::uint64_t address) const {
    for (const Piece& piece : pieces_)
        if (piece.start <= address && address < piece.end()) return &piece;
    return nullptr;
}

std::optional<std::uint64_t> Guess::host_of(std::uint64_t address) const {
    const Piece* piece = find(address);
    if (piece == nullptr) return std::nullopt;
    return piece->host + (address - piece->start);
}

std::uint64_t Guess::end_of(bool above_4g) const {
    std::uint64_t end = above_4g ? four_gib : 0;
    for (const Piece& piece : pieces_)
        if ((piece.start >= four_gib) == above_4g) end = std::max(end, piece.end());
    return end;
}

std::optional<Guess> Guess::with(const Block& block, std::uint64_t address, std::uint64_t host,
                                 std::uint64_t first) const {
    if (!block.has(host)) return std::nullopt;
    if (address >= four_gib) first = std::max(first, four_gib);
    const std::uint64_t last = address < four_gib ? four_gib : address_limit;
    if (address >= last) return std::nullopt;
    const std::uint64_t down = std::min(host - block.start, address - first);
    const std::uint64_t up = std::min(block.end - host, last - address);
    Piece fresh{address - down, down + up, host - down};
    Guess result;
    for (Piece old : pieces_) {
        if (!fit(old, fresh, address, host)) return std::nullopt;
        if (old.size > 0) result.pieces_.push_back(old);
    }
    result.pieces_.push_back(fresh);
    std::ranges::sort(result.pieces_, {}, &Piece::start);
    return result;
}

Result<std::size_t> GuessMemory::read_some(PhysicalAddress address, MutableBytes out) {
    if (out.empty()) return 0;
    const Piece* piece = guess_->find(raw(address));
    if (piece == nullptr) return fail(Errc::bad_address, "no memory at physical address " + hex(address));
    const std::uint64_t offset = raw(address) - piece->start;
    const auto length = std::min<std::uint64_t>(out.size(), piece->size - offset);
    const std::size_t count = (*read_)(piece->host + offset, out.first(length));
    if (count == 0) return fail(Errc::bad_address, "memory of the monitor cannot be read");
    return count;
}

Result<std::size_t> GuessMemory::write_some(PhysicalAddress address, ConstBytes) {
    return fail(Errc::unsupported, "a guess is not written to: " + hex(address));
}

}  // namespace exo::kvm
