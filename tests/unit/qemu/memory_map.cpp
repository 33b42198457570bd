#include "backends/qemu/memory_map.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "tests/unit/qemu/captured.h"

using namespace exo;
using namespace exo::qemu;
using Kind = MemoryRegion::Kind;

namespace {

const MapRange& at(const std::vector<MapRange>& ranges, std::uint64_t address) {
    const auto range = std::ranges::find_if(ranges, [&](const MapRange& candidate) {
        return raw(candidate.region.start) <= address && address < candidate.region.end();
    });
    REQUIRE(range != ranges.end());
    return *range;
}

std::string view(std::string_view lines) {
    return "FlatView #1\n AS \"memory\", root: system\n Root memory region: system\n" + std::string{lines};
}

}  // namespace

TEST_CASE("memory map: 6 GiB with a PCI hole") {
    const auto ranges = parse_flat_view(captured::mtree_q35_6g);
    REQUIRE(ranges);
    CHECK(at(*ranges, 0).region.kind == Kind::ram);
    CHECK(at(*ranges, 0).region.size == 0xc3000);
    CHECK(at(*ranges, 0).region.name == "pc.ram");
    CHECK(at(*ranges, 0).block_offset == 0);
    CHECK(at(*ranges, 0xf0000).region.kind == Kind::rom);
    CHECK(at(*ranges, 0xf0000).block_offset == 0xf0000);
    CHECK(at(*ranges, 0xfee00000).region.kind == Kind::mmio);
    CHECK(at(*ranges, 0xfee00000).region.name == "apic-msi");
    CHECK(at(*ranges, 0xfffffff0).region.name == "pc.bios");
    CHECK(at(*ranges, 0x100000000).block_offset == 0x80000000);
    CHECK(at(*ranges, 0x1ffffffff).region.end() == 0x200000000);
    std::uint64_t ram = 0;
    for (const auto& range : *ranges)
        if (range.region.kind == Kind::ram) ram += range.region.size;
    CHECK(ram == (std::uint64_t{6} << 30U) - 0x25000 - 0x10000);
    // Of all views, only the one of "memory": rows of SMM and of I/O ports are not in it.
    CHECK(ranges->size() == 10);
}

TEST_CASE("memory map: KVM marks its ranges") {
    const auto ranges = parse_flat_view(captured::mtree_pc_kvm);
    REQUIRE(ranges);
    CHECK(at(*ranges, 0).region.name == "pc.ram");
    CHECK(at(*ranges, 0xe0000).region.name == "pc.bios");
    CHECK(at(*ranges, 0xe0000).block_offset == 0x20000);
    CHECK(at(*ranges, 0xa0000).region.name == "vga-lowmem");
    CHECK(at(*ranges, 0xa0000).region.kind == Kind::mmio);
    CHECK(at(*ranges, 0x100000000).block_offset == 0xc0000000);
    CHECK(at(*ranges, 0x100000000).region.kind == Kind::ram);
}

TEST_CASE("memory map: flash and non-volatile memory") {
    const auto flash = parse_flat_view(captured::mtree_flash);
    REQUIRE(flash);
    CHECK(at(*flash, 0xffc00000).region.kind == Kind::rom);
    CHECK(at(*flash, 0xffc00000).region.name == "system.flash0");
    const auto nvdimm = parse_flat_view(captured::mtree_nvdimm);
    REQUIRE(nvdimm);
    CHECK(at(*nvdimm, 0x100000000).region.kind == Kind::ram);
    CHECK(at(*nvdimm, 0x100000000).region.size == 128 << 20);
}

TEST_CASE("memory map: names with blanks and brackets, the last byte of the address space") {
    const auto ranges = parse_flat_view(
        view("  0000000000000000-0000000000000fff (prio 0, nv-rom): my ram @ 5 @0000000000001000 KVM KVM\n"
             "  0000000000001000-0000000000001fff (prio -1, ramd): 0000:01:00.0 BAR 1 mmaps[0]\n"
             "  f000000000000000-ffffffffffffffff (prio 0, i/o): the rest\n"));
    REQUIRE(ranges);
    REQUIRE(ranges->size() == 3);
    CHECK((*ranges)[0].region.name == "my ram @ 5");
    CHECK((*ranges)[0].region.kind == Kind::rom);
    CHECK((*ranges)[0].block_offset == 0x1000);
    CHECK((*ranges)[1].region.kind == Kind::mmio);
    CHECK((*ranges)[1].region.name == "0000:01:00.0 BAR 1 mmaps[0]");
    CHECK((*ranges)[2].region.end() == UINT64_MAX);
}

TEST_CASE("memory map: what makes no sense is refused") {
    CHECK_FALSE(parse_flat_view(""));
    CHECK_FALSE(parse_flat_view("FlatView #0\n AS \"I/O\", root: io\n"));
    CHECK_FALSE(parse_flat_view(view("  0000-0fff (prio 0, wood): x\n")));
    CHECK_FALSE(parse_flat_view(view("  1000-0fff (prio 0, ram): x\n")));
    CHECK_FALSE(parse_flat_view(view("  0000-1fff (prio 0, ram): x\n  1000-2fff (prio 0, ram): y\n")));
    CHECK_FALSE(parse_flat_view(view("  00z0-0fff (prio 0, ram): x\n")));
    CHECK(parse_flat_view(view("")).value().empty());
}

TEST_CASE("gpa2hva") {
    CHECK(parse_gpa2hva("Host virtual address for 0x0 (pc.ram) is 0x7fb3afe00000\n") == 0x7fb3afe00000);
    CHECK_FALSE(parse_gpa2hva("Memory at address 0xb0000000 is not RAM\n"));
    CHECK_FALSE(parse_gpa2hva("No memory is mapped at address 0x1\n"));
    CHECK_FALSE(parse_gpa2hva("Host virtual address for 0x0 (pc.ram) is 0x\n"));
    CHECK_FALSE(parse_gpa2hva(""));
}
