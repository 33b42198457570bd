// Page tables in any RAM: a walk ends, a translation is the same from the caches, and a leaf that a visit
// finds is what a walk to its start finds.
#include <array>
#include <vector>

#include "fuzz.h"
#include "os-awareness/page_tables.h"
#include "tests/support/fake_memory.h"

namespace {

using namespace exo;

constexpr std::uint64_t page_bytes = 4096;
constexpr auto modes = std::to_array({x86::PagingMode::none, x86::PagingMode::bits32, x86::PagingMode::pae,
                                      x86::PagingMode::levels4, x86::PagingMode::levels5});

// Few pages, each entry an index into them and flags, so that tables that lead somewhere are likely.
std::uint64_t entry_of(std::uint64_t seed) {
    return (seed & 7) * page_bytes | (seed >> 3 & 0x87) | (seed >> 12 & 1) << 63 | (seed >> 13 & 1) << 47;
}

void fill(test::FakeMemory& memory, fuzz::Input& input) {
    constexpr std::size_t pages = 6;
    memory.add_ram(PhysicalAddress{0}, pages * page_bytes);
    while (input.rest().size() > 64) {
        const std::uint64_t where = input.number(2) % (pages * 512);
        memory.put(PhysicalAddress{where * 8}, entry_of(input.number(2)));
    }
}

bool same(const Translation& a, const Translation& b) {
    return a.physical == b.physical && a.page_size == b.page_size && a.writable == b.writable &&
           a.user == b.user && a.executable == b.executable;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::Input input{data, size};
    const auto mode = modes[input.byte() % modes.size()];
    const PhysicalAddress root{input.byte() % 8 * page_bytes};
    const std::uint64_t mask = input.byte() % 2 == 0 ? 0 : 1ULL << 47;
    test::FakeMemory memory;
    fill(memory, input);
    os::PageTables tables{memory, root, mode, mask};
    while (input.rest().size() >= 8) {
        const VirtualAddress address{input.number(8)};
        const auto first = tables.translate(address);
        const auto cached = tables.translate(address);
        tables.forget();
        const auto fresh = tables.translate(address);
        fuzz::require(first.has_value() == cached.has_value() && first.has_value() == fresh.has_value());
        if (first) fuzz::require(same(*first, *cached) && same(*first, *fresh));
    }
    std::size_t leaves = 0;
    (void)tables.for_each_leaf(
        VirtualAddress{0}, ~std::uint64_t{0},
        [&](const os::PageTables::Leaf& leaf) {
            const auto found = tables.translate(leaf.start);
            fuzz::require(found && same(*found, leaf.translation));
            return ++leaves < 1000;
        },
        64);
    fuzz::require(memory.reads() < 20'000);
    return 0;
}
