// x86 page tables as data: one walker for every paging mode, over guest-physical memory.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>

#include "backends/api/memory.h"
#include "backends/arch/x86_64.h"

namespace exo::x86 {

class PageTables final : public AddressSpace {
public:
    // `root` is CR3 as the registers have it or the physical address of the top table; PCID and flag bits are
    // ignored. Entries are taken as PhysicalMemory::from_machine() tells. `encryption_mask` is the bit of an
    // entry that marks encrypted memory (AMD SME), 0 if none. Mode `none` maps each address to itself below 4
    // GiB, as a CPU without paging does.
    PageTables(PhysicalMemory& memory, PhysicalAddress root, PagingMode mode,
               std::uint64_t encryption_mask = 0);

    // bad_address: not canonical, not present, or a table that is not in RAM; the message names the level.
    Result<Translation> translate(VirtualAddress address) override;
    [[nodiscard]] PhysicalMemory& physical() override { return *memory_; }
    std::optional<VirtualAddress> next_mapped(VirtualAddress address) override;

    [[nodiscard]] PhysicalAddress root() const { return root_; }
    [[nodiscard]] PagingMode mode() const { return mode_; }

    // Other tables of the same memory, from now on.
    void set_root(PhysicalAddress root, PagingMode mode);

    // Translations are kept until then: call at each stop, since the guest changes its tables.
    void forget() override;

    // What ends the way to an address: a leaf or an entry that is not present, whose other bits are the
    // operating system's.
    struct LastEntry {
        std::uint64_t value = 0;  // without the mark of encrypted memory
        std::uint64_t size = 0;   // bytes that it maps, or would
        [[nodiscard]] bool present() const { return (value & 1) != 0; }
    };
    // bad_address where a table is not in RAM or the address is not canonical. Nothing is kept or taken from
    // what was.
    Result<LastEntry> last_entry(VirtualAddress address);

    // One present leaf.
    struct Leaf {
        VirtualAddress start{};
        Translation translation;  // of `start`
    };
    // A table that a visit is about to read.
    struct Table {
        PhysicalAddress address{};
        VirtualAddress start{};        // what its first entry maps
        std::uint64_t entry_span = 0;  // bytes that one entry maps
    };
    // Whether the visit reads the table and what is below it.
    using Enter = std::function<bool(const Table&)>;
    // Calls `visit` for each present leaf that overlaps [start, start + size), in address order, until it
    // returns false. A leaf may begin before `start`. Tables that cannot be read are skipped, and those that
    // `enter` refuses. Reads at most one table for each that is present in the window, and at most
    // `table_limit` in all: bad_data beyond.
    Result<void> for_each_leaf(VirtualAddress start, std::uint64_t size,
                               const std::function<bool(const Leaf&)>& visit, std::size_t table_limit = 4096,
                               const Enter& enter = {});

private:
    struct Visit;

    // What the entries on the way down allow together.
    struct Rights {
        bool writable = true;
        bool user = true;
        bool executable = true;
    };
    static constexpr std::uint64_t no_page = ~std::uint64_t{0};  // no virtual page has that number
    // Direct-mapped by page number, so that a hit needs no search.
    struct CachedPage {
        std::uint64_t number = no_page;
        Translation translation;  // of the first byte of that page
    };
    // The table of the last level for 2 MiB of addresses, as a CPU's paging-structure cache has it: what is
    // left is one read.
    struct CachedTable {
        std::uint64_t number = no_page;  // virtual address >> 21
        std::uint64_t table = 0;
        Rights rights;
    };

    static void restrict(Rights& rights, std::uint64_t entry, bool has_permissions, bool has_no_execute);
    Result<Translation> walk(VirtualAddress address);
    // Without the mark of encrypted memory, and with the address that this memory has.
    [[nodiscard]] Result<std::uint64_t> as_here(std::uint64_t entry) const;
    Result<std::uint64_t> read_entry(PhysicalAddress at, std::size_t bytes) const;

    PhysicalMemory* memory_;
    PhysicalAddress root_;
    PagingMode mode_;
    std::uint64_t encryption_mask_;
    bool machine_addresses_;
    std::array<CachedPage, 256> pages_{};        // of 4 KiB
    std::array<CachedPage, 512> large_pages_{};  // by 2 MiB, of which larger ones have several
    std::array<CachedTable, 64> tables_{};
};

}  // namespace exo::x86
