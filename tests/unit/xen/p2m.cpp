#include "backends/xen/p2m.h"

#include <doctest/doctest.h>

#include "backends/arch/page_tables.h"
#include "backends/xen/headers.h"
#include "backends/xen/layout.h"
#include "tests/unit/xen/fake_frames.h"

using namespace exo;
using namespace exo::xen;
using test::FakeFrames;

namespace {

// A guest of 1024 frames, of which number n is the machine's 5000 + n, with its linear table at `table`; its
// page tables are its numbers 1 to 5, as those of the kernel are.
struct PvGuest {
    static constexpr std::uint64_t base = 5000, shared = 40, frames = 1024;
    static constexpr std::uint64_t table = 0xffffc90000000000;
    static constexpr std::uint64_t root = base + 1;
    // Xen's table: two frames of it are enough for these numbers, of 512 that a piece has.
    static constexpr std::uint64_t extent = 100000;

    PvGuest() {
        for (std::uint64_t i = 0; i < 512; ++i) xen_frames.page(extent + i).fill(std::byte{0xff});
        for (std::uint64_t n = 0; n < frames; ++n) {
            guest.put(base + n, 0, n);
            tell(base + n, n);
            guest.put(base + 10 + n / 512, n % 512 * 8, base + n);
        }
        guest.page(root).fill(std::byte{});
        link(1, table, 39, 2);
        link(2, table, 30, 3);
        link(3, table, 21, 4);
        link(4, table, 12, 10);
        link(4, table + page_bytes, 12, 11);
        anchor(offsetof(arch_shared_info, max_pfn), frames);
        anchor(offsetof(arch_shared_info, p2m_cr3), root << page_shift);
        anchor(offsetof(arch_shared_info, p2m_vaddr), table);
    }

    void link(std::uint64_t from, std::uint64_t address, unsigned shift, std::uint64_t to) {
        guest.put(base + from, (address >> shift & 511) * 8, (base + to) << page_shift | 0x67);
    }
    void anchor(std::size_t offset, std::uint64_t value) {
        guest.put(shared, offsetof(shared_info_t, arch) + offset, value);
    }
    // Xen's table.
    void tell(std::uint64_t frame, std::uint64_t number) {
        xen_frames.put(extent + frame / 512, frame % 512 * 8, number);
    }
    void give(std::uint64_t number, std::uint64_t frame) {
        guest.put(base + 10 + number / 512, number % 512 * 8, frame);
    }

    FakeFrames guest, xen_frames;
    MachineToPhysical machine{xen_frames, {extent}};
    P2m p2m{guest, machine, shared};
};

std::uint64_t frame_of(P2m& p2m, std::uint64_t number) {
    std::uint64_t frame = 0;
    return p2m.frames_of(number, std::span{&frame, 1}) ? frame : 0;
}

}  // namespace

TEST_CASE("xen p2m: the linear table") {
    PvGuest pv;
    CHECK(pv.p2m.size() == 1024);
    CHECK(frame_of(pv.p2m, 7) == 5007);
    CHECK(frame_of(pv.p2m, 700) == 5700);
    CHECK(frame_of(pv.p2m, 1024) == no_frame);
    std::array<std::uint64_t, 1024> all{};
    REQUIRE(pv.p2m.frames_of(256, all));
    CHECK(all[0] == 5256);
    CHECK(all[767] == 6023);
    CHECK(all[768] == no_frame);
}

TEST_CASE("xen p2m: the table in three levels, of older kernels") {
    PvGuest pv;
    pv.anchor(offsetof(arch_shared_info, p2m_cr3), 0);
    pv.anchor(offsetof(arch_shared_info, pfn_to_mfn_frame_list_list), PvGuest::base + 20);
    pv.guest.put(PvGuest::base + 20, 0, PvGuest::base + 21);
    pv.guest.put(PvGuest::base + 21, 0, PvGuest::base + 10);
    pv.guest.put(PvGuest::base + 21, 8, PvGuest::base + 11);
    CHECK(frame_of(pv.p2m, 700) == 5700);
}

TEST_CASE("xen p2m: frames that are not the guest's own") {
    PvGuest pv;
    pv.give(7, 5007 | 1ULL << 63);  // of another domain, mapped
    pv.give(8, 1ULL << 62 | 8);     // a device's
    pv.give(9, ~std::uint64_t{0});  // given back
    for (const std::uint64_t number : {7U, 8U, 9U}) {
        CHECK(frame_of(pv.p2m, number) == no_frame);
        CHECK_FALSE(pv.p2m.number_of(PvGuest::base + number));
    }
    CHECK(pv.p2m.number_of(5006) == 6);
    // Another domain's frame, to which Xen's table gives a number that this guest has too.
    pv.tell(4000, 6);
    const auto others = pv.p2m.number_of(4000);
    REQUIRE_FALSE(others);
    CHECK(others.error().code == Errc::bad_address);
    CHECK_FALSE(pv.p2m.number_of(4001));        // nobody's
    CHECK_FALSE(pv.p2m.number_of(1ULL << 39));  // beyond the machine
    CHECK_FALSE(pv.p2m.number_of(~std::uint64_t{0} >> 12));
}

TEST_CASE("xen p2m: a guest that has not told its table, or keeps changing it") {
    PvGuest pv;
    SUBCASE("not yet") {
        pv.anchor(offsetof(arch_shared_info, p2m_cr3), 0);
        const auto size = pv.p2m.size();
        REQUIRE_FALSE(size);
        CHECK(size.error().code == Errc::not_found);
    }
    SUBCASE("in the middle of a change") {
        pv.anchor(offsetof(arch_shared_info, p2m_generation), 3);
        std::uint64_t frame = 0;
        const auto changing = pv.p2m.frames_of(1, std::span{&frame, 1});
        REQUIRE_FALSE(changing);
        CHECK(changing.error().code == Errc::busy);
    }
    SUBCASE("to tables that are not there") {
        pv.anchor(offsetof(arch_shared_info, p2m_cr3), 0x7777000);
        std::uint64_t frame = 0;
        CHECK_FALSE(pv.p2m.frames_of(1, std::span{&frame, 1}));
    }
}

TEST_CASE("xen p2m: page tables of machine frames lead through memory by the guest's numbers") {
    PvGuest pv;
    constexpr std::uint64_t address = 0xffffffff81000000;
    pv.link(1, address, 39, 30);
    pv.link(30, address, 30, 31);
    pv.link(31, address, 21, 32);
    pv.link(32, address, 12, 600);
    ForeignMemory memory{pv.guest, &pv.p2m, regions_of_pv(*pv.p2m.size()), {}};
    x86::PageTables tables{memory, PhysicalAddress{1 << page_shift}, x86::PagingMode::levels4};
    const auto found = tables.translate(VirtualAddress{address + 0x123});
    REQUIRE(found);
    CHECK(raw(found->physical) == (600ULL << page_shift | 0x123));
    CHECK(tables.read_value<std::uint64_t>(VirtualAddress{address}).value() == 600);
    const auto entry = tables.last_entry(VirtualAddress{address});
    REQUIRE(entry);
    CHECK((entry->value & 0x000f'ffff'ffff'f000) == 600ULL << page_shift);
    // The hypervisor's own half, whose tables are none of the guest's frames.
    constexpr std::uint64_t xens = 0xffff800000000000;
    pv.guest.put(PvGuest::root, (xens >> 39 & 511) * 8, 4000ULL << page_shift | 0x63);
    const auto hidden = tables.translate(VirtualAddress{xens});
    REQUIRE_FALSE(hidden);
    CHECK(hidden.error().code == Errc::bad_address);
    std::size_t leaves = 0;
    CHECK(tables.for_each_leaf(VirtualAddress{xens}, ~xens, [&](const auto& leaf) {
        CHECK(raw(leaf.start) >= PvGuest::table);
        return ++leaves < 100;
    }));
    CHECK(leaves == 3);  // the table of frames, and the page above
}
