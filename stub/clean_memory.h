// Guest memory with our software breakpoints hidden: who reads sees the guest's own bytes. Where a hypervisor
// keeps breakpoints out of guest memory (QEMU's TCG) there is nothing to hide, and nothing is changed.
#pragma once

#include <cstdint>
#include <map>

#include "backends/api/memory.h"

namespace exo::stub {

class CleanMemory final : public PhysicalMemory {
public:
    explicit CleanMemory(PhysicalMemory& below) : below_(below) {}

    Result<std::size_t> read_some(PhysicalAddress address, MutableBytes out) override;
    void read_scattered(std::span<Fragment> fragments) override;
    Result<std::size_t> write_some(PhysicalAddress address, ConstBytes in) override;
    [[nodiscard]] std::span<const MemoryRegion> regions() const override { return below_.regions(); }
    [[nodiscard]] bool has_machine_addresses() const override { return below_.has_machine_addresses(); }
    Result<PhysicalAddress> from_machine(PhysicalAddress address) override {
        return below_.from_machine(address);
    }

    // From now on a breakpoint at `address` reads as `original`. Writes there change what is hidden, not the
    // breakpoint.
    void hide(PhysicalAddress address, std::byte original) { hidden_[address] = {original}; }
    // The breakpoint is out of the machine, which put back the byte that it had found: one written since goes
    // to memory now.
    Result<void> reveal(PhysicalAddress address);
    [[nodiscard]] bool hides(PhysicalAddress address) const { return hidden_.contains(address); }
    // A software breakpoint's byte, as it is in the guest.
    static constexpr std::byte int3{0xcc};

private:
    void clean(PhysicalAddress address, MutableBytes bytes) const;

    struct Hidden {
        std::byte value{};
        bool written = false;
    };

    PhysicalMemory& below_;
    std::map<PhysicalAddress, Hidden> hidden_;
};

}  // namespace exo::stub
