#include "backends/kvm/slots.h"

#include <doctest/doctest.h>

#include "tests/unit/kvm/fake_monitor.h"

using namespace exo;
using namespace exo::kvm;
using namespace exo::kvm::test;

namespace {

// A monitor's arrangement: its mappings, where guest memory is in them, and where the guest keeps tables.
struct Arrangement {
    std::string name;
    std::vector<Mapping> mappings;
    std::vector<TrueSlot> slots;
    std::vector<std::uint64_t> tables;
};

std::vector<Arrangement> arrangements() {
    const Mapping heap = memory(0x5555'0000'0000, 40 * mib, "[heap]");
    const Mapping arena = memory(base - 32 * gib, 64 * mib);
    return {
        {"QEMU pc, 512 MiB",
         {heap, arena, memory(base, 512 * mib)},
         {{0, 512 * mib, base}},
         {32 * mib, 500 * mib}},
        {"QEMU pc, 3.5 GiB",
         {heap, memory(base, 3584 * mib)},
         {{0, 3 * gib, base}, {4 * gib, 512 * mib, base + 3 * gib}},
         {32 * mib, 3000 * mib, 4 * gib + 100 * mib}},
        {"QEMU pc, 3.25 GiB: all of it low",
         {memory(base, 3328 * mib)},
         {{0, 3328 * mib, base}},
         {32 * mib, 3200 * mib}},
        {"QEMU q35, 6 GiB",
         {arena, memory(base, 6 * gib)},
         {{0, 2 * gib, base}, {4 * gib, 4 * gib, base + 2 * gib}},
         {32 * mib, 1900 * mib, 4 * gib, 7 * gib}},
        {"QEMU q35, all tables above 4 GiB, the root alone below",
         {memory(base, 6 * gib)},
         {{0, 2 * gib, base}, {4 * gib, 4 * gib, base + 2 * gib}},
         {5 * gib, 6 * gib}},
        {"QEMU q35, all tables above 4 GiB, a stack in front",
         {memory(base - 17 * mib, 3584 * mib + 17 * mib)},
         {{0, 2 * gib, base}, {4 * gib, 1536 * mib, base + 2 * gib}},
         {4 * gib + 32 * mib, 5 * gib}},
        {"a split that no table knows",
         {memory(base, 4 * gib)},
         {{0, 1311 * mib, base}, {4 * gib, 4 * gib - 1311 * mib, base + 1311 * mib}},
         {32 * mib, 4 * gib + 64 * mib}},
        {"Firecracker, one mapping a slot",
         {arena, memory(base, 3328 * mib), memory(base + 8 * gib, 2 * gib)},
         {{0, 3328 * mib, base}, {4 * gib, 2 * gib, base + 8 * gib}},
         {32 * mib, 3300 * mib, 5 * gib}},
        {"two slots that the kernel made one mapping, the upper one first",
         {memory(base, 5 * gib)},
         {{0, 3 * gib, base + 2 * gib}, {4 * gib, 2 * gib, base}},
         {32 * mib, 2900 * mib, 5 * gib}},
        {"kvmtool, the gap within",
         {memory(base, 3328 * mib), memory(base + 4 * gib, 2 * gib)},
         {{0, 3328 * mib, base}, {4 * gib, 2 * gib, base + 4 * gib}},
         {32 * mib, 4 * gib + 32 * mib}},
        {"a stack in front, in the same mapping",
         {memory(base - 8 * mib, 1032 * mib)},
         {{0, 1 * gib, base}},
         {32 * mib, 1000 * mib}},
        {"two NUMA nodes",
         {memory(base, 3 * gib), memory(base + 16 * gib, 1 * gib)},
         {{0, 1 * gib, base + 16 * gib}, {1 * gib, 2 * gib, base}, {4 * gib, 1 * gib, base + 2 * gib}},
         {32 * mib, 1500 * mib, 4 * gib + 8 * mib}},
        {"memory above AMD's hole",
         {memory(base, 6 * gib)},
         {{0, 2 * gib, base}, {1024 * gib, 4 * gib, base + 2 * gib}},
         {32 * mib, 1025 * gib}},
    };
}

const Slot* slot_at(const Slots& slots, std::uint64_t address) {
    for (const Slot& slot : slots.slots)
        if (raw(slot.start) <= address && address < slot.end()) return &slot;
    return nullptr;
}

// Nothing is told that is not so, and what has tables is told.
void check_true(const Slots& found, const FakeMonitor& monitor, const std::vector<std::uint64_t>& tables) {
    std::uint64_t end = 0;
    for (const Slot& slot : found.slots) {
        CAPTURE(hex(slot.start));
        CAPTURE(hex(slot.end() - 1));
        CHECK(raw(slot.start) >= end);
        end = slot.end();
        CHECK(monitor.host_of(raw(slot.start)) == slot.host);
        CHECK(monitor.host_of(slot.end() - 1) == slot.host + slot.size - 1);
    }
    for (const std::uint64_t address : tables) {
        CAPTURE(hex(address));
        const Slot* slot = slot_at(found, address);
        REQUIRE(slot != nullptr);
        CHECK(slot->name == "ram");
        CHECK(slot->host + (address - raw(slot->start)) == monitor.host_of(address));
    }
}

}  // namespace

TEST_CASE("every arrangement is found") {
    for (const Arrangement& arrangement : arrangements()) {
        for (const bool smap : {false, true}) {
            CAPTURE(arrangement.name);
            CAPTURE(smap);
            FakeMonitor monitor{arrangement.mappings, arrangement.slots};
            const FakeGuest guest{monitor, arrangement.tables};
            const Witness witnesses[] = {guest.witness(smap)};
            const auto found = find_slots(monitor.mappings(), monitor.reader(), witnesses);
            REQUIRE_MESSAGE(found, found.error().message);
            check_true(*found, monitor, arrangement.tables);
            CHECK(found->confirmed >= 4);
            CHECK(monitor.reads() < 300'000);
        }
    }
}

TEST_CASE("video memory is a hole, and what firmware may have made ROM is read only") {
    FakeMonitor monitor{{memory(base, 512 * mib)}, {{0, 512 * mib, base}}};
    const FakeGuest guest{monitor, {32 * mib}};
    const Witness witnesses[] = {guest.witness()};
    const auto found = find_slots(monitor.mappings(), monitor.reader(), witnesses);
    REQUIRE(found);
    CHECK(slot_at(*found, 0x9ffff) != nullptr);
    CHECK(slot_at(*found, 0xa0000) == nullptr);
    CHECK(slot_at(*found, 0xbffff) == nullptr);
    REQUIRE(slot_at(*found, 0xf0000) != nullptr);
    CHECK(slot_at(*found, 0xf0000)->kind == MemoryRegion::Kind::rom);
    CHECK(slot_at(*found, 0x100000)->name == "ram");
    CHECK(slot_at(*found, 512 * mib) == nullptr);
}

TEST_CASE("what nothing was seen of is marked") {
    // The mapping is large enough for a split, and no table lies where it would tell whether there is one.
    FakeMonitor monitor{{memory(base, 3328 * mib)}, {{0, 3328 * mib, base}}};
    const FakeGuest guest{monitor, {32 * mib, 600 * mib}};
    const Witness witnesses[] = {guest.witness()};
    const auto found = find_slots(monitor.mappings(), monitor.reader(), witnesses);
    REQUIRE(found);
    CHECK(slot_at(*found, 600 * mib)->name == "ram");
    CHECK(slot_at(*found, 3000 * mib)->name == "ram, not verified");
    REQUIRE(!found->notes.empty());
    CHECK(found->notes.front().find("0xcfffffff is not verified") != std::string::npos);
}

TEST_CASE("a mapping that is too long for the memory below 4 GiB, and nothing is seen above") {
    FakeMonitor monitor{{memory(base, 6 * gib)}, {{0, 2 * gib, base}, {4 * gib, 4 * gib, base + 2 * gib}}};
    const FakeGuest guest{monitor, {32 * mib, 1900 * mib}};
    const Witness witnesses[] = {guest.witness()};
    const auto found = find_slots(monitor.mappings(), monitor.reader(), witnesses);
    REQUIRE(found);
    check_true(*found, monitor, {32 * mib, 1900 * mib});
    CHECK(slot_at(*found, 2 * gib - 1) != nullptr);
    CHECK(slot_at(*found, 2 * gib) == nullptr);
    CHECK(slot_at(*found, 4 * gib) == nullptr);
    REQUIRE(found->notes.size() == 1);
    CHECK(found->notes[0].starts_with("4096 MiB of the monitor's memory"));
}

TEST_CASE("all page tables lie above a split that no table knows: what firmware left tells of the rest") {
    // The kernel may have merged other memory of the monitor's with what lies at 0.
    for (const std::uint64_t merged : {std::uint64_t{0}, 15 * mib + 0x7b000}) {
        CAPTURE(merged);
        constexpr std::uint64_t low = 1311 * mib;
        constexpr std::uint32_t rsdp = 0xf52d0, rsdt = 0x51e'0000;
        FakeMonitor monitor{{memory(base - merged, merged + 3 * gib)},
                            {{0, low, base}, {4 * gib, 3 * gib - low, base + low}}};
        const FakeGuest guest{monitor, {4 * gib + 32 * mib, 5 * gib}};
        monitor.put(rsdp, structure("RSD PTR ", 20, 16, rsdt, 8));
        monitor.put(rsdt, structure("RSDT", 60, 4, 60, 9));
        const Witness witnesses[] = {guest.witness()};
        const auto found = find_slots(monitor.mappings(), monitor.reader(), witnesses);
        REQUIRE_MESSAGE(found, found.error().message);
        check_true(*found, monitor, {rsdt, low - mib, 4 * gib, 5 * gib});
        CHECK(slot_at(*found, low) == nullptr);
    }
}

TEST_CASE("memory that cannot be placed is a hole and is told") {
    FakeMonitor monitor{{memory(base, 1 * gib), memory(base + 16 * gib, 1 * gib)},
                        {{0, 1 * gib, base}, {8 * gib, 1 * gib, base + 16 * gib}}};
    const FakeGuest guest{monitor, {32 * mib, 700 * mib}};
    const Witness witnesses[] = {guest.witness()};
    const auto found = find_slots(monitor.mappings(), monitor.reader(), witnesses);
    REQUIRE(found);
    CHECK(slot_at(*found, 8 * gib) == nullptr);
    REQUIRE(found->notes.size() == 1);
    CHECK(found->notes[0].find("1024 MiB of the monitor's memory at 0x7f0400000000") != std::string::npos);
}

TEST_CASE("the root of another process, with the same kernel half, is not taken for this one's") {
    // It lies where a wrong split would have this one's.
    FakeMonitor monitor{{memory(base, 6 * gib)}, {{0, 2 * gib, base}, {4 * gib, 4 * gib, base + 2 * gib}}};
    FakeGuest guest{monitor, {5 * gib, 32 * mib}};
    std::array<std::byte, 4096> root{};
    REQUIRE(monitor.read(PhysicalAddress{guest.root()}, root));
    const std::uint64_t wrong = base + 3 * gib + (guest.root() - 4 * gib);
    monitor.put_host(wrong, ConstBytes{root}.subspan(2048));  // the upper half, first
    monitor.put_host(wrong, ConstBytes{root}.first(2048));
    std::uint64_t nothing = 0;
    monitor.put_host(wrong + (FakeGuest::user >> 39 & 511) * 8, std::as_bytes(std::span{&nothing, 1}));
    monitor.put_host(wrong + 2048, ConstBytes{root}.subspan(2048));
    const Witness witnesses[] = {guest.witness()};
    const auto found = find_slots(monitor.mappings(), monitor.reader(), witnesses);
    REQUIRE(found);
    check_true(*found, monitor, {5 * gib, 32 * mib});
}

TEST_CASE("page tables of a hostile guest") {
    FakeMonitor monitor{{memory(base, 1 * gib)}, {{0, 1 * gib, base}}};
    FakeGuest guest{monitor, {32 * mib, 700 * mib}};
    const auto entry_of = [&](unsigned index) { return guest.root() + index * 8; };
    SUBCASE("the root is its own table, at every level") {
        monitor.put_entry(entry_of(300), guest.root() | 3);
    }
    SUBCASE("many entries of the root are the root") {
        for (unsigned i = 257; i < 272; ++i) monitor.put_entry(entry_of(i), guest.root() | 3);
    }
    SUBCASE("an entry of ones") { monitor.put_entry(entry_of(300), ~std::uint64_t{0}); }
    SUBCASE("a table in no memory") { monitor.put_entry(entry_of(300), (3 * gib) | 3); }
    SUBCASE("a table of ones") {
        const std::uint64_t page = guest.table();
        monitor.put_entry(entry_of(300), page | 3);
        for (unsigned i = 0; i < 512; ++i) monitor.put_entry(page + i * 8, ~std::uint64_t{0});
    }
    SUBCASE("two tables that are each other's") {
        const std::uint64_t one = guest.table();
        const std::uint64_t two = guest.table();
        monitor.put_entry(entry_of(300), one | 3);
        for (unsigned i = 0; i < 512; ++i) monitor.put_entry(one + i * 8, two | 3);
        for (unsigned i = 0; i < 512; ++i) monitor.put_entry(two + i * 8, one | 3);
    }
    const Witness witnesses[] = {guest.witness()};
    const auto found = find_slots(monitor.mappings(), monitor.reader(), witnesses);
    REQUIRE_MESSAGE(found, found.error().message);
    check_true(*found, monitor, {32 * mib, 700 * mib});
    CHECK(monitor.reads() < 300'000);
}

TEST_CASE("one answer that is another refutes") {
    FakeMonitor monitor{{memory(base, 64 * mib)}, {{0, 64 * mib, base}}};
    const FakeGuest guest{monitor, {32 * mib}};
    Witness witness = guest.witness();
    const auto honest = witness.translate;
    SUBCASE("of an address of its own") {
        witness.translate = [&](VirtualAddress address) -> Result<std::optional<PhysicalAddress>> {
            if (raw(address) == FakeGuest::text + 0x1234) return PhysicalAddress{0x5000};
            return honest(address);
        };
    }
    SUBCASE("of one that is met in the tables") {
        witness.translate = [&](VirtualAddress address) -> Result<std::optional<PhysicalAddress>> {
            if (raw(address) == FakeGuest::small + 2 * mib) return PhysicalAddress{0x5000};
            return honest(address);
        };
    }
    const Witness witnesses[] = {witness};
    const auto found = find_slots(monitor.mappings(), monitor.reader(), witnesses);
    REQUIRE_FALSE(found);
    CHECK(found.error().code == Errc::not_found);
}

TEST_CASE("a vCPU that does not answer") {
    FakeMonitor monitor{{memory(base, 64 * mib)}, {{0, 64 * mib, base}}};
    const FakeGuest guest{monitor, {32 * mib}};
    Witness witness = guest.witness();
    witness.translate = [](VirtualAddress) -> Result<std::optional<PhysicalAddress>> {
        return fail(Errc::backend, "KVM_TRANSLATE: Input/output error");
    };
    const Witness witnesses[] = {witness};
    const auto found = find_slots(monitor.mappings(), monitor.reader(), witnesses);
    REQUIRE_FALSE(found);
    CHECK(found.error().code == Errc::backend);
    CHECK(found.error().message == "guest memory: KVM_TRANSLATE: Input/output error");
}

TEST_CASE("paging is off") {
    FakeMonitor monitor{{memory(base, 64 * mib)}, {{0, 64 * mib, base}}};
    Witness witness;
    witness.addresses = {0x7c10};
    SUBCASE("there is no code where it is executed") {
        const Witness witnesses[] = {witness};
        CHECK_FALSE(find_slots(monitor.mappings(), monitor.reader(), witnesses));
    }
    SUBCASE("there is") {
        monitor.put(0x7c10, std::as_bytes(std::span{"\x66\xff\x06\x00\x60\xe8"}));
        const Witness witnesses[] = {witness};
        const auto found = find_slots(monitor.mappings(), monitor.reader(), witnesses);
        REQUIRE(found);
        CHECK(slot_at(*found, 0x7c10)->host == base + 0);
        CHECK(slot_at(*found, 0x7c10)->name == "ram, not verified");
        CHECK(slot_at(*found, 0xf0000) == nullptr);
        REQUIRE(!found->notes.empty());
        CHECK(found->notes[0].starts_with("no vCPU has paging on"));
    }
}

TEST_CASE("paging is off, and a thread's stack lies before guest memory, in one mapping or in two") {
    constexpr std::uint64_t stack = 8 * mib;
    constexpr std::uint64_t odd = 0x3000;  // of the stack's start; guest memory begins at a huge page
    bool merged = false;
    SUBCASE("one") { merged = true; }
    SUBCASE("two") {}
    std::vector<Mapping> mappings{memory(base + odd, stack - odd + 64 * mib)};
    if (!merged) mappings = {memory(base + odd, stack - odd), memory(base + stack, 64 * mib)};
    FakeMonitor monitor{std::move(mappings), {{0, 64 * mib, base + stack}}};
    monitor.put_host(base + stack - 0x2000, std::as_bytes(std::span{"what a stack has at its end"}));
    monitor.put(0x7c10, std::as_bytes(std::span{"\x66\xff\x06\x00\x60\xe8"}));
    Witness witness;
    witness.addresses = {0x7c10};
    const Witness witnesses[] = {witness};
    const auto found = find_slots(monitor.mappings(), monitor.reader(), witnesses);
    REQUIRE(found);
    REQUIRE(slot_at(*found, 0x7c10) != nullptr);
    CHECK(slot_at(*found, 0x7c10)->host == base + stack);
    REQUIRE(!found->notes.empty());
    CHECK(found->notes[0].starts_with("no vCPU has paging on"));
}

TEST_CASE("a monitor without memory") {
    const Witness witnesses[] = {Witness{}};
    const ReadVmm nothing = [](std::uint64_t, MutableBytes) -> std::size_t { return 0; };
    const auto found = find_slots({}, nothing, witnesses);
    REQUIRE_FALSE(found);
    CHECK(found.error().code == Errc::not_found);
}
