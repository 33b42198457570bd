// x86 page tables as data: one walker for every paging mode, over guest-physical memory.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>

#include "backends/api/memory.h"
#include "backends/arch/x86_64.h"

namespace exo::os {

class PageTables final : public AddressSpace {
public:
    // `root` is CR3 as the CPU has it or the physical address of the top table; PCID and flag bits are
    // ignored. `encryption_mask` is the bit of an entry that marks encrypted memory (AMD SME), 0 if none.
    // Mode `none` maps each address to itself below 4 GiB, as a CPU without paging does.
    PageTables(PhysicalMemory& memory, PhysicalAddress root, x86::PagingMode mode,
               std::uint64_t encryption_mask = 0);

    // bad_address: not canonical, not present, or a table that is not in RAM; the message names the level.
    Result<Translation> translate(VirtualAddress address) override;
    [[nodiscard]] PhysicalMemory& physical() override { return *memory_; }
    std::optional<VirtualAddress> next_mapped(VirtualAddress address) override;

    [[nodiscard]] PhysicalAddress root() const { return root_; }
    [[nodiscard]] x86::PagingMode mode() const { return mode_; }

    // Translations are kept until then: call at each stop, since the guest changes its tables.
    void invalidate();

    // One present leaf.
    struct Leaf {
        VirtualAddress start{};
        Translation translation;  // of `start`
    };
    // Calls `visit` for each present leaf that overlaps [start, start + size), in address order, until it
    // returns false. A leaf may begin before `start`. Tables that cannot be read are skipped. Reads at most
    // one table for each that is present in the window, and at most `table_limit` in all: bad_data beyond.
    Result<void> for_each_leaf(VirtualAddress start, std::uint64_t size,
                               const std::function<bool(const Leaf&)>& visit, std::size_t table_limit = 4096);

private:
    struct Visit;

    Result<Translation> walk(VirtualAddress address);

    // Direct-mapped by virtual page number: 4 KiB granules, so that a hit needs no search.
    struct CacheLine {
        std::uint64_t page = ~std::uint64_t{0};  // virtual page number; all ones is never one
        Translation translation;                 // of the first byte of that page
    };
    static constexpr std::size_t cache_lines = 256;

    PhysicalMemory* memory_;
    PhysicalAddress root_;
    x86::PagingMode mode_;
    std::uint64_t encryption_mask_;
    std::array<CacheLine, cache_lines> cache_{};
};

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

private:
    AddressSpace* kernel_;
    std::unique_ptr<AddressSpace> user_;
};

}  // namespace exo::os
