#include "backends/kvm/guess.h"

#include <doctest/doctest.h>

#include "tests/unit/kvm/fake_monitor.h"

using namespace exo;
using namespace exo::kvm;
using namespace exo::kvm::test;

namespace {

void check_piece(const Guess& guess, std::size_t index, const Piece& expected) {
    CAPTURE(index);
    REQUIRE(index < guess.pieces().size());
    const Piece& piece = guess.pieces()[index];
    CHECK(piece.start == expected.start);
    CHECK(piece.size == expected.size);
    CHECK(piece.host == expected.host);
}

}  // namespace

TEST_CASE("a piece goes as far as its block does, not across 4 GiB") {
    const Block block{base, base + 6 * gib, {}};
    const auto low = Guess{}.with(block, 32 * mib, base + 32 * mib);
    REQUIRE(low);
    check_piece(*low, 0, {0, 4 * gib, base});
    CHECK(low->host_of(0x1234) == base + 0x1234);
    CHECK_FALSE(low->host_of(4 * gib));

    // What is seen above 4 GiB ends it.
    const auto both = low->with(block, 5 * gib, base + 4 * gib);
    REQUIRE(both);
    CHECK(both->pieces().size() == 2);
    check_piece(*both, 0, {0, 3 * gib, base});
    check_piece(*both, 1, {4 * gib, 3 * gib, base + 3 * gib});
    CHECK(both->end_of(false) == 3 * gib);
    CHECK(both->end_of(true) == 7 * gib);
}

TEST_CASE("a page has one place") {
    const Block block{base, base + gib, {}};
    const Block other{base + 8 * gib, base + 9 * gib, {}};
    const auto guess = Guess{}.with(block, 32 * mib, base + 32 * mib);
    REQUIRE(guess);
    CHECK_FALSE(guess->with(other, 32 * mib, base + 8 * gib + 32 * mib));
    CHECK_FALSE(guess->with(block, 32 * mib, base - mib));
    CHECK_FALSE(guess->with(block, 1ULL << 52, base));
}

TEST_CASE("between nodes the rounder border counts") {
    const Block first{base, base + gib, {}};
    const Block second{base + 8 * gib - 8 * mib, base + 9 * gib, {}};  // with a stack in front
    const auto one = Guess{}.with(first, 32 * mib, base + 32 * mib);
    REQUIRE(one);
    const auto two = one->with(second, gib + 64 * mib, base + 8 * gib + 64 * mib);
    REQUIRE(two);
    check_piece(*two, 0, {0, gib, base});
    check_piece(*two, 1, {gib, gib, base + 8 * gib});
}

TEST_CASE("memory of a guess") {
    const Block block{base, base + mib, {}};
    const auto guess = Guess{}.with(block, 0, base);
    REQUIRE(guess);
    const ReadVmm read = [](std::uint64_t host, MutableBytes out) -> std::size_t {
        for (auto& byte : out) byte = static_cast<std::byte>(host++ - base);
        return out.size();
    };
    GuessMemory physical{*guess, read};
    std::array<std::byte, 4> bytes{};
    REQUIRE(physical.read(PhysicalAddress{0x12}, bytes));
    CHECK(bytes[0] == std::byte{0x12});
    CHECK(physical.read_some(PhysicalAddress{mib - 2}, bytes) == 2);
    CHECK(physical.read(PhysicalAddress{mib}, bytes).error().code == Errc::bad_address);
    CHECK_FALSE(physical.write(PhysicalAddress{0}, bytes));
}
