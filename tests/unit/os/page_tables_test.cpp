#include "os-awareness/page_tables.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "tests/support/fake_memory.h"

using namespace exo;
using namespace exo::os;
using exo::test::FakeMemory;

namespace {

constexpr std::uint64_t present = 1;
constexpr std::uint64_t writable = 2;
constexpr std::uint64_t for_user = 4;
constexpr std::uint64_t large_leaf = 0x80;
constexpr std::uint64_t nx = 1ULL << 63;
constexpr VirtualAddress kernel_base{0xffff'ffff'8000'0000};

struct GuestTables {
    FakeMemory memory;
    GuestTables() { memory.add_ram(PhysicalAddress{0}, 1 << 20); }
    void entry(std::uint64_t table, std::uint64_t index, std::uint64_t value) {
        memory.put(PhysicalAddress{table + index * 8}, value);
    }
    void entry32(std::uint64_t table, std::uint64_t index, std::uint32_t value) {
        memory.put(PhysicalAddress{table + index * 4}, value);
    }
};

std::string physical(PageTables& tables, std::uint64_t address) {
    const auto found = tables.translate(VirtualAddress{address});
    return found ? hex(found->physical) : found.error().message;
}

}  // namespace

TEST_CASE("page tables: 4 levels, leaves of 4 KiB, 2 MiB and 1 GiB") {
    GuestTables guest;
    guest.entry(0x1000, 511, 0x2000 | present | writable | for_user);
    guest.entry(0x2000, 510, 0x3000 | present | writable);
    guest.entry(0x2000, 511, 0x4'4000'0000 | present | large_leaf | nx);
    guest.entry(0x3000, 8, 0x4000 | present | writable);
    guest.entry(0x3000, 9, 0x1'2340'0000 | present | large_leaf);
    guest.entry(0x4000, 3, 0x5'5555'5000 | present | writable);
    PageTables tables{guest.memory, PhysicalAddress{0x1000}, x86::PagingMode::levels4};

    const auto small = tables.translate(VirtualAddress{0xffff'ffff'8100'3abc});
    REQUIRE(small);
    CHECK(hex(small->physical) == "0x555555abc");
    CHECK(small->page_size == 4096);
    CHECK(small->left_in_page() == 4096 - 0xabc);
    CHECK(small->writable);
    CHECK(!small->user);
    CHECK(small->executable);

    const auto middle = tables.translate(VirtualAddress{0xffff'ffff'8125'6789});
    REQUIRE(middle);
    CHECK(hex(middle->physical) == "0x123456789");
    CHECK(middle->page_size == 2 << 20);
    CHECK(middle->left_in_page() == (2 << 20) - 0x5'6789);
    CHECK(!middle->writable);

    const auto huge = tables.translate(VirtualAddress{0xffff'ffff'c123'4567});
    REQUIRE(huge);
    CHECK(hex(huge->physical) == "0x441234567");
    CHECK(huge->page_size == 1 << 30);
    CHECK(!huge->executable);
}

TEST_CASE("page tables: a miss names the level and where its entry is") {
    GuestTables guest;
    guest.entry(0x1000, 511, 0x2000 | present | writable);
    guest.entry(0x2000, 510, 0xdead'0000 | present | writable);
    PageTables tables{guest.memory, PhysicalAddress{0x1000}, x86::PagingMode::levels4};
    CHECK(physical(tables, 0x1000) == "0x1000 is not mapped: PML4 entry at 0x1000 is not present");
    CHECK(physical(tables, 0xffff'ffff'4000'0000) ==
          "0xffffffff40000000 is not mapped: PDPT entry at 0x2fe8 is not present");
    CHECK(
        physical(tables, 0xffff'ffff'8000'0000).starts_with("PD entry of 0xffffffff80000000 is not in RAM"));
    CHECK(physical(tables, 0x8000'0000'0000) == "0x800000000000 is not canonical");
    CHECK(physical(tables, 0xffff'7fff'ffff'ffff) == "0xffff7fffffffffff is not canonical");
    CHECK(tables.translate(VirtualAddress{0x1000}).error().code == Errc::bad_address);
}

TEST_CASE("page tables: 5 levels; the same tables seen with 4 lead nowhere") {
    GuestTables guest;
    guest.entry(0x1000, 511, 0x2000 | present | writable);
    guest.entry(0x2000, 511, 0x3000 | present | writable);
    guest.entry(0x3000, 510, 0x4000 | present | writable);
    guest.entry(0x4000, 8, 0x60'0000 | present | large_leaf);
    guest.entry(0x1000, 1, 0x5000 | present | for_user);
    guest.entry(0x5000, 0, 0x6000 | present | for_user);
    guest.entry(0x6000, 0, 0x8000'0000 | present | large_leaf | for_user);
    PageTables tables{guest.memory, PhysicalAddress{0x1000}, x86::PagingMode::levels5};
    CHECK(physical(tables, 0xffff'ffff'8100'0010) == "0x600010");
    CHECK(physical(tables, 0x0001'0000'0000'1234) == "0x80001234");
    CHECK(physical(tables, 0x0100'0000'0000'0000) == "0x100000000000000 is not canonical");
    PageTables four{guest.memory, PhysicalAddress{0x1000}, x86::PagingMode::levels4};
    CHECK(!four.translate(VirtualAddress{0xffff'ffff'8100'0010}));
}

TEST_CASE("page tables: PCID, no-flush and LAM bits of CR3 are not address") {
    GuestTables guest;
    guest.entry(0x1000, 0, 0x2000 | present);
    guest.entry(0x2000, 0, 0x4000'0000 | present | large_leaf);
    PageTables tables{guest.memory, PhysicalAddress{0xe000'0000'0000'1803}, x86::PagingMode::levels4};
    CHECK(hex(tables.root()) == "0x1000");
    CHECK(physical(tables, 5) == "0x40000005");
}

TEST_CASE("page tables: the C-bit of AMD's memory encryption is taken out of every entry") {
    GuestTables guest;
    const std::uint64_t c = 1ULL << 47;
    guest.entry(0x1000, 0, 0x2000 | present | c);
    guest.entry(0x2000, 0, 0x3000 | present | c);
    guest.entry(0x3000, 1, 0x9'9920'0000 | present | large_leaf | c);
    PageTables tables{guest.memory, PhysicalAddress{0x1000 | c}, x86::PagingMode::levels4, c};
    CHECK(physical(tables, 0x20'0042) == "0x999200042");
    PageTables blind{guest.memory, PhysicalAddress{0x1000}, x86::PagingMode::levels4};
    CHECK(!blind.translate(VirtualAddress{0x20'0042}));
}

TEST_CASE("page tables: PAE and 32-bit") {
    GuestTables guest;
    guest.entry(0x1020, 3, 0x2000 | present);
    guest.entry(0x2000, 0, 0x3000 | present | writable);
    guest.entry(0x2000, 1, 0x2'0020'0000 | present | large_leaf | nx);
    guest.entry(0x3000, 1, 0x7'7777'7000 | present | writable);
    PageTables pae{guest.memory, PhysicalAddress{0x1020}, x86::PagingMode::pae};
    CHECK(physical(pae, 0xc000'1004) == "0x777777004");
    CHECK(pae.translate(VirtualAddress{0xc000'1004})->writable);  // a PDPT entry has no such bit
    CHECK(physical(pae, 0xc020'0004) == "0x200200004");
    CHECK(physical(pae, 0x1'0000'0000) == "0x100000000 is not canonical");

    guest.entry32(0x8000, 768, 0x9000 | present | writable);
    guest.entry32(0x8000, 769, 0x00c0'0000 | (0x5 << 13) | present | large_leaf);
    guest.entry32(0x9000, 2, 0x000a'b000 | present);
    PageTables old{guest.memory, PhysicalAddress{0x8018}, x86::PagingMode::bits32};
    CHECK(physical(old, 0xc000'2fff) == "0xabfff");
    CHECK(old.translate(VirtualAddress{0xc040'0001})->page_size == 4 << 20);
    CHECK(physical(old, 0xc050'0001) == "0x500d00001");
}

TEST_CASE("page tables: without paging an address is itself, below 4 GiB") {
    GuestTables guest;
    PageTables tables{guest.memory, PhysicalAddress{0}, x86::PagingMode::none};
    CHECK(physical(tables, 0xfff0) == "0xfff0");
    CHECK(!tables.translate(VirtualAddress{1ULL << 32}));
}

TEST_CASE("page tables: translations are kept until forget()") {
    GuestTables guest;
    guest.entry(0x1000, 0, 0x2000 | present);
    guest.entry(0x2000, 0, 0x3000 | present);
    guest.entry(0x3000, 0, 0x4000 | present);
    guest.entry(0x3000, 1, 0x20'0000 | present | large_leaf);
    guest.entry(0x4000, 1, 0xa000 | present);
    guest.entry(0x4000, 2, 0xb000 | present);
    PageTables tables{guest.memory, PhysicalAddress{0x1000}, x86::PagingMode::levels4};
    CHECK(physical(tables, 0x1001) == "0xa001");
    CHECK(guest.memory.reads() == 4);
    CHECK(physical(tables, 0x2001) == "0xb001");
    CHECK(guest.memory.reads() == 5);  // the last level only
    CHECK(physical(tables, 0x1002) == "0xa002");
    CHECK(physical(tables, 0x20'0000) == "0x200000");
    const auto before = guest.memory.reads();
    CHECK(physical(tables, 0x3f'ffff) == "0x3fffff");
    CHECK(guest.memory.reads() == before);

    guest.entry(0x4000, 1, 0xc000 | present);
    guest.entry(0x3000, 1, 0);
    CHECK(physical(tables, 0x1001) == "0xa001");
    tables.forget();
    CHECK(physical(tables, 0x1001) == "0xc001");
    CHECK(!tables.translate(VirtualAddress{0x20'0000}));
}

TEST_CASE("page tables: a miss is not kept") {
    GuestTables guest;
    PageTables tables{guest.memory, PhysicalAddress{0x1000}, x86::PagingMode::levels4};
    CHECK(!tables.translate(VirtualAddress{0}));
    guest.entry(0x1000, 0, 0x2000 | present);
    guest.entry(0x2000, 0, 0x4000'0000 | present | large_leaf);
    CHECK(physical(tables, 0) == "0x40000000");
}

TEST_CASE("page tables: reads cross pages that are apart in physical memory") {
    GuestTables guest;
    guest.entry(0x1000, 0, 0x2000 | present);
    guest.entry(0x2000, 0, 0x3000 | present);
    guest.entry(0x3000, 0, 0x4000 | present);
    guest.entry(0x4000, 0, 0xa000 | present);
    guest.entry(0x4000, 1, 0x8000 | present);
    guest.memory.put_text(PhysicalAddress{0xaffe}, "ab");
    guest.memory.put_text(PhysicalAddress{0x8000}, "cd");
    PageTables tables{guest.memory, PhysicalAddress{0x1000}, x86::PagingMode::levels4};
    CHECK(*tables.read_string(VirtualAddress{0xffe}, 10) == "abcd");
    std::vector<std::byte> two_pages(3 * 4096);
    CHECK(*tables.read_some(VirtualAddress{0}, two_pages) == 2 * 4096);
}

TEST_CASE("page tables: leaves of a window, in address order") {
    GuestTables guest;
    guest.entry(0x1000, 511, 0x2000 | present | writable);
    guest.entry(0x1000, 0, 0x2000 | present | writable);
    guest.entry(0x2000, 510, 0x3000 | present | writable);
    guest.entry(0x2000, 511, 0xc000'0000 | present | large_leaf);
    guest.entry(0x3000, 0, 0x4000 | present | nx);
    guest.entry(0x3000, 511, 0x40'0000 | present | writable | large_leaf);
    guest.entry(0x4000, 511, 0x9000 | present);
    guest.entry(0x3000, 7, 0xffff'f000 | present);  // a table that is not in RAM
    PageTables tables{guest.memory, PhysicalAddress{0x1000}, x86::PagingMode::levels4};
    std::vector<std::string> leaves;
    const auto collect = [&](const PageTables::Leaf& leaf) {
        leaves.push_back(hex(leaf.start) + " " + hex(leaf.translation.physical) + " " +
                         hex(leaf.translation.page_size) + (leaf.translation.executable ? " x" : ""));
        return true;
    };
    CHECK(tables.for_each_leaf(kernel_base, 1 << 30, collect));
    CHECK(leaves == std::vector<std::string>{"0xffffffff801ff000 0x9000 0x1000",
                                             "0xffffffffbfe00000 0x400000 0x200000 x"});

    leaves.clear();  // to the top of the address space, from within a leaf
    CHECK(tables.for_each_leaf(VirtualAddress{0xffff'ffff'bfff'f000}, ~std::uint64_t{0}, collect));
    CHECK(leaves == std::vector<std::string>{"0xffffffffbfe00000 0x400000 0x200000 x",
                                             "0xffffffffc0000000 0xc0000000 0x40000000 x"});
    leaves.clear();
    CHECK(tables.for_each_leaf(kernel_base, 4096, collect));
    CHECK(leaves.empty());
    leaves.clear();
    CHECK(
        tables.for_each_leaf(kernel_base, 1 << 30, [&](const auto& leaf) { return collect(leaf) && false; }));
    CHECK(leaves.size() == 1);
}

TEST_CASE("page tables: a visit tells of each table before it reads it, and leaves out what is refused") {
    GuestTables guest;
    guest.entry(0x1000, 511, 0x2000 | present);
    guest.entry(0x2000, 510, 0x3000 | present);
    guest.entry(0x3000, 0, 0x4000 | present);
    guest.entry(0x3000, 1, 0x5000 | present);
    guest.entry(0x4000, 0, 0x9000 | present);
    guest.entry(0x5000, 0, 0xa000 | present);
    PageTables tables{guest.memory, PhysicalAddress{0x1000}, x86::PagingMode::levels4};
    std::vector<std::string> seen;
    const auto leaf = [&](const PageTables::Leaf& found) {
        seen.push_back("leaf " + hex(found.translation.physical));
        return true;
    };
    const auto enter = [&](const PageTables::Table& table) {
        seen.push_back(hex(table.address) + " " + hex(table.start) + " " + hex(table.entry_span));
        return raw(table.address) != 0x4000;
    };
    CHECK(tables.for_each_leaf(kernel_base, 1 << 30, leaf, 4, enter));  // what is refused does not count
    CHECK(seen == std::vector<std::string>{"0x1000 0x0 0x8000000000", "0x2000 0xffffff8000000000 0x40000000",
                                           "0x3000 0xffffffff80000000 0x200000",
                                           "0x4000 0xffffffff80000000 0x1000",
                                           "0x5000 0xffffffff80200000 0x1000", "leaf 0xa000"});
}

TEST_CASE("page tables: a hostile guest cannot make the visit long") {
    GuestTables guest;
    // Every entry of one table points at itself: 512^4 leaves, were it followed.
    for (std::uint64_t i = 0; i < 512; ++i) guest.entry(0x1000, i, 0x1000 | present | writable);
    PageTables tables{guest.memory, PhysicalAddress{0x1000}, x86::PagingMode::levels5};
    const auto all = [](const PageTables::Leaf&) { return true; };
    const auto visited = tables.for_each_leaf(VirtualAddress{0}, ~std::uint64_t{0}, all, 100);
    REQUIRE(!visited);
    CHECK(visited.error().code == Errc::bad_data);
    CHECK(guest.memory.reads() <= 100);
    CHECK(physical(tables, 0x1234) == "0x1234");
}

TEST_CASE("split address space: each half through its own tables") {
    GuestTables guest;
    guest.entry(0x1000, 511, 0x2000 | present);
    guest.entry(0x1000, 0, 0x2000 | present);
    guest.entry(0x2000, 510, 0x4000'0000 | present | large_leaf);
    guest.entry(0x2000, 0, 0x4000'0000 | present | large_leaf);
    guest.entry(0x5000, 0, 0x6000 | present);
    guest.entry(0x6000, 0, 0x8000'0000 | present | large_leaf | for_user);
    PageTables tables{guest.memory, PhysicalAddress{0x1000}, x86::PagingMode::levels4};
    SplitAddressSpace task{tables, std::make_unique<PageTables>(guest.memory, PhysicalAddress{0x5000},
                                                                x86::PagingMode::levels4)};
    CHECK(hex(task.translate(VirtualAddress{0x10})->physical) == "0x80000010");
    CHECK(hex(task.translate(VirtualAddress{0xffff'ffff'8000'0010})->physical) == "0x40000010");
    CHECK(&task.physical() == &guest.memory);
    SplitAddressSpace thread{tables, nullptr};
    CHECK(thread.translate(kernel_base));
    CHECK(thread.translate(VirtualAddress{0x10}).error().code == Errc::bad_address);
}

TEST_CASE("page tables: the entry that ends a walk, present or not") {
    GuestTables guest;
    guest.entry(0x1000, 0, 0x2000 | present | writable | for_user);
    guest.entry(0x2000, 0, 0x3000 | present | writable | for_user);
    guest.entry(0x3000, 0, 0x4000 | present | writable | for_user);
    guest.entry(0x3000, 1, 0x60'0000 | present | large_leaf);
    guest.entry(0x3000, 2, 0xabc'0000'0100);
    guest.entry(0x4000, 3, 0x5000 | present);
    guest.entry(0x4000, 4, 0x1234'0000'0000'0e00);
    PageTables tables{guest.memory, PhysicalAddress{0x1000}, x86::PagingMode::levels4};
    const auto last = [&](std::uint64_t address) { return tables.last_entry(VirtualAddress{address}); };
    CHECK(last(0x3010)->value == (0x5000 | present));
    CHECK(last(0x3010)->present());
    CHECK(last(0x4010)->value == 0x1234'0000'0000'0e00);
    CHECK(last(0x4010)->size == 4096);
    CHECK_FALSE(last(0x4010)->present());
    CHECK(last(0x20'0000)->size == 2U << 20U);
    CHECK(last(0x40'0000)->value == 0xabc'0000'0100);  // where a table would be
    CHECK(last(0x40'0000)->size == 2U << 20U);
    CHECK(last(0x80'0000'0000)->value == 0);
    CHECK(last(0x80'0000'0000)->size == 1ULL << 39U);
    CHECK_FALSE(last(0x8000'0000'0000));
    guest.entry(0x3000, 0, 0x4000'0000 | present);  // not in RAM
    CHECK_FALSE(last(0x3010));
}
