// Address spaces of a kernel: the CPU's page tables, and a space of two halves.
#pragma once

#include <memory>

#include "backends/api/memory.h"
#include "backends/arch/page_tables.h"

namespace exo::os {

using x86::PageTables;

// The kernel half of the address space (bit 63 set) through one space, the user half through another: what a
// task sees when KPTI, or a kernel root that was found once and trusted, keep the halves apart.
class SplitAddressSpace final : public AddressSpace {
public:
    // `user` may be null: then user addresses are bad_address (a kernel thread has none).
    // `kernel` must outlive this.
    SplitAddressSpace(AddressSpace& kernel, std::unique_ptr<AddressSpace> user);

    Result<Translation> translate(VirtualAddress address) override;
    [[nodiscard]] PhysicalMemory& physical() override { return kernel_->physical(); }
    std::optional<VirtualAddress> next_mapped(VirtualAddress address) override;
    void forget() override;

private:
    AddressSpace* kernel_;
    std::unique_ptr<AddressSpace> user_;
};

}  // namespace exo::os
