#include "backends/kvm/landmarks.h"

#include <doctest/doctest.h>

#include "tests/unit/kvm/fake_monitor.h"

using namespace exo;
using namespace exo::kvm;
using namespace exo::kvm::test;

namespace {

constexpr std::uint64_t rsdp = 0xf52d0;
constexpr std::uint64_t rsdt = 0x1fe'0000;

struct Machine {
    FakeMonitor monitor{{memory(base, 32 * mib)}, {{0, 32 * mib, base}}};
    Block block{base, base + 32 * mib, {}};

    std::set<std::uint64_t> found(std::uint64_t start = base) {
        return landmarks(*Guess{}.with(block, 0, start), monitor.reader());
    }
};

}  // namespace

TEST_CASE("ACPI's root pointer and the table that it points at") {
    Machine machine;
    machine.monitor.put(rsdp, structure("RSD PTR ", 20, 16, rsdt, 8));
    SUBCASE("both are there") {
        machine.monitor.put(rsdt, structure("RSDT", 60, 4, 60, 9));
        CHECK(machine.found() == std::set<std::uint64_t>{rsdp, rsdt});
        // Memory that begins a MiB further up, or anywhere else, does not have them.
        CHECK(machine.found(base + mib).empty());
        CHECK(machine.found(base + 64 * kib).empty());
    }
    SUBCASE("the table's checksum is wrong") {
        auto table = structure("RSDT", 60, 4, 60, 9);
        table[20] = std::byte{1};
        machine.monitor.put(rsdt, table);
        CHECK(machine.found().empty());
    }
    SUBCASE("the table's length is nonsense") {
        for (const std::uint32_t length : {0U, 7U, 0x10'0000U, ~0U}) {
            machine.monitor.put(rsdt, structure("RSDT", 60, 4, length, 9));
            CHECK(machine.found().empty());
        }
    }
    SUBCASE("there is no table") { CHECK(machine.found().empty()); }
}

TEST_CASE("the MP floating pointer") {
    Machine machine;
    machine.monitor.put(0x9fc00, structure("_MP_", 16, 4, 0x9fc10, 10));
    machine.monitor.put(0x9fc10, structure("PCMP", 44, 4, 44, 7));
    CHECK(machine.found() == std::set<std::uint64_t>{0x9fc00, 0x9fc10});
}
