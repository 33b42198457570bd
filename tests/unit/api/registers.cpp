#include "backends/api/registers.h"

#include <array>

#include <doctest/doctest.h>

using namespace exo;

namespace {

constexpr std::array<RegisterInfo, 3> infos{{
    {.name = "wide", .bits = 64, .offset = 0},
    {.name = "narrow", .bits = 16, .offset = 8},
    {.name = "vector", .bits = 128, .offset = 10},
}};

constexpr RegisterLayout small{.registers = infos, .size = 26};

}  // namespace

TEST_CASE("registers are found by name") {
    CHECK(small.find("narrow") == 1);
    CHECK(small.find("vector") == 2);
    CHECK_FALSE(small.find("Wide").has_value());
    CHECK_FALSE(small.find("").has_value());
}

TEST_CASE("unavailable is not 0") {
    RegisterSet set{small};
    CHECK_FALSE(set.available(0));
    CHECK_FALSE(set.get(0).has_value());
    set.set(0, 0);
    CHECK(set.available(0));
    CHECK(set.get(0) == 0);
    set.set(0, 7);
    set.set_unavailable(0);
    CHECK_FALSE(set.get(0).has_value());
    CHECK(set.bytes(0)[0] == std::byte{0});  // and what it was does not show through
}

TEST_CASE("values are cut or extended to the register's size, and stay in it") {
    RegisterSet set{small};
    set.set(0, 0x1122334455667788);
    set.set(2, 0);
    set.set(1, 0xaabbccdd);
    CHECK(set.get(1) == 0xccdd);
    CHECK(set.get(0) == 0x1122334455667788);
    CHECK(set.get(2) == 0);
    CHECK(set.bytes(1)[0] == std::byte{0xdd});

    set.set(2, 0x8000000000000001);
    CHECK(set.get(2) == 0x8000000000000001);
    for (std::size_t i = 8; i < 16; ++i) CHECK(set.bytes(2)[i] == std::byte{0});

    constexpr std::array<std::byte, 3> three{std::byte{1}, std::byte{2}, std::byte{3}};
    set.set(0, ~std::uint64_t{0});
    set.set_bytes(0, three);
    CHECK(set.get(0) == 0x030201);
    set.set_bytes(1, three);
    CHECK(set.get(1) == 0x0201);
    CHECK(set.bytes(2)[0] == std::byte{1});  // the neighbour
}

TEST_CASE("get() gives the low 64 bits of a longer register") {
    RegisterSet set{small};
    std::array<std::byte, 16> value{};
    value[7] = std::byte{0x80};
    value[8] = std::byte{0xff};
    set.set_bytes(2, value);
    CHECK(set.get(2) == 0x8000000000000000);
    CHECK(set.bytes(2).size() == 16);
    CHECK(set.bytes(2)[8] == std::byte{0xff});
}
