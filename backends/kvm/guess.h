// A guess about which part of a monitor's memory is which part of its guest's, and guest memory as it would
// then be.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "backends/api/memory.h"
#include "backends/kvm/blocks.h"
#include "backends/kvm/slots.h"

namespace exo::kvm {

inline constexpr std::uint64_t four_gib = 1ULL << 32;

struct Piece {
    std::uint64_t start = 0;  // guest-physical
    std::uint64_t size = 0;   // bytes
    std::uint64_t host = 0;

    [[nodiscard]] std::uint64_t end() const { return start + size; }
    [[nodiscard]] std::uint64_t host_end() const { return host + size; }
};

class Guess {
public:
    // Sorted by start. Disjoint, in the guest and in the monitor.
    [[nodiscard]] std::span<const Piece> pieces() const { return pieces_; }
    [[nodiscard]] const Piece* find(std::uint64_t address) const;
    [[nodiscard]] std::optional<std::uint64_t> host_of(std::uint64_t address) const;
    // The end of the last piece that begins below or at and above 4 GiB; 0 or 4 GiB if there is none.
    [[nodiscard]] std::uint64_t end_of(bool above_4g) const;

    // This guess, and the page at `address` of the guest lies at `host`. The new piece goes as far as `block`
    // does on both sides, but not across 4 GiB, where x86 has its devices, nor below `first`. Pieces that
    // went further than was known end where it begins. Nothing if it cannot be: the page itself is in two
    // places.
    [[nodiscard]] std::optional<Guess> with(const Block& block, std::uint64_t address, std::uint64_t host,
                                            std::uint64_t first = 0) const;

private:
    std::vector<Piece> pieces_;
};

class GuessMemory final : public PhysicalMemory {
public:
    GuessMemory(const Guess& guess, const ReadVmm& read) : guess_(&guess), read_(&read) {}

    Result<std::size_t> read_some(PhysicalAddress address, MutableBytes out) override;
    Result<std::size_t> write_some(PhysicalAddress address, ConstBytes in) override;
    [[nodiscard]] std::span<const MemoryRegion> regions() const override { return {}; }

private:
    const Guess* guess_;
    const ReadVmm* read_;
};

}  // namespace exo::kvm
