// What a process can reach itself: the pages of one half of an address space that user mode may use.
#pragma once

#include <functional>

#include "backends/api/memory.h"

namespace exo::os {

class UserSpace final : public AddressSpace {
public:
    // `whole` must outlive this.
    explicit UserSpace(AddressSpace& whole) : whole_(&whole) {}

    Result<Translation> translate(VirtualAddress address) override;
    [[nodiscard]] PhysicalMemory& physical() override { return whole_->physical(); }
    std::optional<VirtualAddress> next_mapped(VirtualAddress address) override;
    void forget() override { whole_->forget(); }

    // Whether a page, which is mapped read-only, is this process' alone.
    using IsPrivate = std::function<bool(PhysicalAddress)>;
    // denied where a page cannot be written through these tables: another process or a file may have it, too,
    // and only the guest itself can make a copy.
    Result<void> check_writable(VirtualAddress address, std::uint64_t size, const IsPrivate& is_private);

private:
    AddressSpace* whole_;
};

}  // namespace exo::os
