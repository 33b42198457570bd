// Small reads of guest memory made cheap: a backend's read is a system call or worse, walking page tables and
// lists is thousands of 8-byte reads.
#pragma once

#include <cstdint>
#include <list>
#include <unordered_map>
#include <vector>

#include "backends/api/memory.h"

namespace exo::os {

// Keeps 4 KiB pages until invalidate(), the least recently used give way. Reads of `bulk` bytes or more go
// past it, writes go through it. Only true while the guest stands still, or for a snapshot. The pages of one
// stop are mostly those of the next: the first that is asked for then brings them all.
class PageCache final : public PhysicalMemory {
public:
    static constexpr std::size_t page_bytes = 4096;
    static constexpr std::size_t bulk = 4 * page_bytes;

    explicit PageCache(PhysicalMemory& memory, std::size_t pages = 4096);

    Result<std::size_t> read_some(PhysicalAddress address, MutableBytes out) override;
    Result<std::size_t> write_some(PhysicalAddress address, ConstBytes in) override;
    [[nodiscard]] std::span<const MemoryRegion> regions() const override { return memory_->regions(); }
    [[nodiscard]] bool has_machine_addresses() const override { return memory_->has_machine_addresses(); }
    Result<PhysicalAddress> from_machine(PhysicalAddress address) override {
        return memory_->from_machine(address);
    }

    void invalidate();  // at each stop, and before reading a guest that runs

private:
    struct Page {
        std::uint64_t number = 0;
        std::vector<std::byte> bytes;  // fewer than page_bytes where memory ends inside the page
        bool asked_for = false;        // and not only expected to be
    };

    Result<const Page*> page(std::uint64_t number);
    void read_expected();
    Page& keep(std::uint64_t number);
    void drop(std::uint64_t number);

    PhysicalMemory* memory_;
    std::size_t limit_;
    std::list<Page> pages_;  // most recently used first
    std::list<Page> spare_;  // to be filled again: allocating them anew is a good part of a look at the tasks
    std::unordered_map<std::uint64_t, std::list<Page>::iterator> by_number_;
    std::vector<std::uint64_t> expected_;  // numbers of pages, until the next one is asked for
};

}  // namespace exo::os
