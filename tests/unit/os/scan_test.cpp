#include "os-awareness/scan.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "tests/support/fake_memory.h"

using namespace exo;
using namespace exo::os;
using exo::test::FakeMemory;

namespace {

std::vector<std::string> find_all(PhysicalMemory& memory, std::string_view needle, std::uint64_t alignment,
                                  ScanLimits limits) {
    std::vector<std::string> found;
    find_in_ram(
        memory, needle, alignment,
        [&](PhysicalAddress at) {
            found.push_back(hex(at));
            return true;
        },
        limits);
    return found;
}

}  // namespace

TEST_CASE("scan: what lies across the border of two chunks is found, and once") {
    FakeMemory memory;
    memory.add_ram(PhysicalAddress{0}, 0x8000);
    for (const std::uint64_t at : {0x0, 0x1ffd, 0x2ffc, 0x3001, 0x7ffb})
        memory.put_text(PhysicalAddress{at}, "token");
    const std::vector<std::string> expected{"0x0", "0x1ffd", "0x2ffc", "0x3001", "0x7ffb"};
    CHECK(find_all(memory, "token", 1, {.chunk = 4096}) == expected);
    CHECK(find_all(memory, "token", 1, {.chunk = 8192}) == expected);
    CHECK(find_all(memory, "token", 1, {}) == expected);
}

TEST_CASE("scan: only places that are aligned") {
    FakeMemory memory;
    memory.add_ram(PhysicalAddress{0x1000}, 0x8000);
    for (const std::uint64_t at : {0x1800, 0x3000, 0x4008, 0x5000})
        memory.put_text(PhysicalAddress{at}, "OS=");
    CHECK(find_all(memory, "OS=", 4096, {}) == std::vector<std::string>{"0x3000", "0x5000"});
    CHECK(find_all(memory, "OS=", 4096, {.chunk = 4096}) == std::vector<std::string>{"0x3000", "0x5000"});
    CHECK(find_all(memory, "OS=", 8, {}).size() == 4);
}

TEST_CASE("scan: holes are passed over, nothing is found across one, and ROM is not RAM") {
    class WithRom : public FakeMemory {
    public:
        std::span<const MemoryRegion> regions() const override { return regions_with_rom; }
        std::vector<MemoryRegion> regions_with_rom;
    } memory;
    memory.add_ram(PhysicalAddress{0}, 0x1000);
    memory.add_ram(PhysicalAddress{0x1000}, 0x1000);
    memory.add_ram(PhysicalAddress{0x10'0000'0000}, 0x2000);
    memory.put_text(PhysicalAddress{0xffe}, "to");
    memory.put_text(PhysicalAddress{0x1000}, "ken token");
    memory.put_text(PhysicalAddress{0x10'0000'1ffb}, "token");
    memory.regions_with_rom = {{PhysicalAddress{0}, 0x1000, MemoryRegion::Kind::ram, ""},
                               {PhysicalAddress{0x1000}, 0x1000, MemoryRegion::Kind::rom, ""},
                               // The last page of this one cannot be read.
                               {PhysicalAddress{0x10'0000'0000}, 0x3000, MemoryRegion::Kind::ram, ""}};
    CHECK(find_all(memory, "token", 1, {}) == std::vector<std::string>{"0x1000001ffb"});
}

TEST_CASE("scan: limits and an early end are told apart") {
    FakeMemory memory;
    memory.add_ram(PhysicalAddress{0}, 0x8000);
    memory.put_text(PhysicalAddress{0x5000}, "token");
    const auto stop = [](PhysicalAddress) { return false; };
    CHECK(find_in_ram(memory, "token", 1, stop));
    CHECK(!find_in_ram(memory, "token", 1, stop, {.bytes = 0x3000, .chunk = 0x1000}));
    std::uint64_t seen = 0;
    CHECK(!for_each_chunk(memory, 0,
                          [&](PhysicalAddress, ConstBytes bytes) {
                              seen += bytes.size();
                              return true;
                          },
                          {.bytes = 0x3000, .chunk = 0x1000}));
    CHECK(seen == 0x3000);
}
