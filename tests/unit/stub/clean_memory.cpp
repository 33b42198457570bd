#include "stub/clean_memory.h"

#include <array>
#include <vector>

#include <doctest/doctest.h>

#include "tests/support/fake_target.h"

using namespace exo;
using namespace exo::stub;

namespace {

constexpr std::byte int3 = CleanMemory::int3;

struct Guest {
    Guest() : ram(0x10000), clean(ram) {
        for (std::size_t i = 0; i < 8; ++i) ram.at(0x1000 + i, 1)[0] = static_cast<std::byte>(0x90 + i);
    }
    // A breakpoint as a backend under KVM inserts it.
    void insert(std::uint64_t at) {
        clean.hide(PhysicalAddress{at}, ram.at(at, 1)[0]);
        saved = std::exchange(ram.at(at, 1)[0], int3);
    }
    void remove(std::uint64_t at) {
        ram.at(at, 1)[0] = saved;
        REQUIRE(clean.reveal(PhysicalAddress{at}).has_value());
    }
    std::vector<int> seen(std::uint64_t from = 0x1000, std::size_t size = 8) {
        std::vector<std::byte> bytes(size);
        REQUIRE(clean.read(PhysicalAddress{from}, bytes).has_value());
        std::vector<int> out;
        for (const std::byte byte : bytes) out.push_back(static_cast<int>(byte));
        return out;
    }
    void write(std::uint64_t at, std::vector<std::byte> bytes) {
        REQUIRE(clean.write(PhysicalAddress{at}, bytes).has_value());
    }
    int byte(std::uint64_t at) { return static_cast<int>(ram.at(at, 1)[0]); }

    test::FakeRam ram;
    CleanMemory clean;
    std::byte saved{};
};

using Bytes = std::vector<int>;

}  // namespace

TEST_CASE("a breakpoint is not seen, from wherever one reads") {
    Guest guest;
    guest.insert(0x1002);
    CHECK(guest.seen() == Bytes{0x90, 0x91, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97});
    CHECK(guest.seen(0x1002, 1) == Bytes{0x92});
    CHECK(guest.seen(0x1000, 2) == Bytes{0x90, 0x91});
    CHECK(guest.seen(0x1003, 1) == Bytes{0x93});
    CHECK(guest.byte(0x1002) == 0xcc);
    guest.remove(0x1002);
    CHECK(guest.byte(0x1002) == 0x92);
}

namespace {

class CountingRam final : public PhysicalMemory {
public:
    explicit CountingRam(test::FakeRam& ram) : ram_(ram) {}
    Result<std::size_t> read_some(PhysicalAddress address, MutableBytes out) override {
        ++single;
        return ram_.read_some(address, out);
    }
    void read_scattered(std::span<Fragment> fragments) override {
        ++scattered;
        ram_.read_scattered(fragments);
    }
    Result<std::size_t> write_some(PhysicalAddress address, ConstBytes in) override {
        return ram_.write_some(address, in);
    }
    [[nodiscard]] std::span<const MemoryRegion> regions() const override { return ram_.regions(); }

    int single = 0, scattered = 0;

private:
    test::FakeRam& ram_;
};

}  // namespace

TEST_CASE("many pieces are one read of the memory below, and a breakpoint is seen in none of them") {
    Guest guest;
    CountingRam ram{guest.ram};
    CleanMemory clean{ram};
    guest.ram.at(0x1002, 1)[0] = int3;
    clean.hide(PhysicalAddress{0x1002}, std::byte{0x92});
    std::array<std::byte, 4> first{};
    std::array<std::byte, 2> second{}, hole{};
    std::array fragments{PhysicalMemory::Fragment{PhysicalAddress{0x1000}, first},
                         PhysicalMemory::Fragment{PhysicalAddress{0x1002}, second},
                         PhysicalMemory::Fragment{PhysicalAddress{0x20000}, hole}};
    clean.read_scattered(fragments);
    CHECK(ram.scattered == 1);
    CHECK(ram.single == 0);
    CHECK(first == std::array{std::byte{0x90}, std::byte{0x91}, std::byte{0x92}, std::byte{0x93}});
    CHECK(second == std::array{std::byte{0x92}, std::byte{0x93}});
    CHECK(fragments[1].read == 2);
    CHECK(fragments[2].read == 0);
}

TEST_CASE("several, next to each other and at the borders of what is read") {
    Guest guest;
    guest.insert(0x1000);
    guest.insert(0x1001);
    guest.insert(0x1007);
    CHECK(guest.seen() == Bytes{0x90, 0x91, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97});
}

TEST_CASE("writes go under a breakpoint, and stay when it is taken out") {
    Guest guest;
    guest.insert(0x1002);
    guest.write(0x1000, {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}});
    CHECK(guest.seen() == Bytes{1, 2, 3, 4, 0x94, 0x95, 0x96, 0x97});
    CHECK(guest.byte(0x1002) == 0xcc);
    CHECK(guest.byte(0x1003) == 4);
    guest.remove(0x1002);
    CHECK(guest.byte(0x1002) == 3);
}

TEST_CASE("where the hypervisor keeps breakpoints out of memory nothing is changed") {
    Guest guest;
    guest.clean.hide(PhysicalAddress{0x1002}, std::byte{0x92});  // no int3 there
    guest.write(0x1002, {std::byte{3}});
    CHECK(guest.byte(0x1002) == 3);
    guest.write(0x1002, {int3});  // the client's own int3
    CHECK(guest.byte(0x1002) == 0xcc);
    CHECK(guest.seen(0x1002, 1) == Bytes{0xcc});
    guest.write(0x1002, {std::byte{5}});
    CHECK(guest.byte(0x1002) == 5);
    REQUIRE(guest.clean.reveal(PhysicalAddress{0x1002}).has_value());
    CHECK(guest.byte(0x1002) == 5);
}

TEST_CASE("what the guest writes over a breakpoint is what is seen, and written to") {
    Guest guest;
    guest.insert(0x1002);
    guest.ram.at(0x1002, 1)[0] = std::byte{0x77};
    CHECK(guest.seen(0x1002, 1) == Bytes{0x77});
    guest.write(0x1002, {std::byte{0x66}});
    CHECK(guest.byte(0x1002) == 0x66);
}

TEST_CASE("what is hidden twice or not at all") {
    Guest guest;
    CHECK(guest.clean.reveal(PhysicalAddress{0x1002}).has_value());
    CHECK_FALSE(guest.clean.hides(PhysicalAddress{0x1002}));
    guest.insert(0x1002);
    CHECK(guest.clean.hides(PhysicalAddress{0x1002}));
    guest.remove(0x1002);
    CHECK_FALSE(guest.clean.hides(PhysicalAddress{0x1002}));
    // A breakpoint in a hole is not there to be read.
    guest.clean.hide(PhysicalAddress{0x20000}, std::byte{1});
    std::array<std::byte, 1> byte{};
    CHECK_FALSE(guest.clean.read(PhysicalAddress{0x20000}, byte).has_value());
    CHECK_FALSE(guest.clean.write(PhysicalAddress{0x20000}, byte).has_value());
}
