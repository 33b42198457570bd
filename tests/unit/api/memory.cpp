#include "backends/api/memory.h"

#include <array>
#include <cstring>
#include <map>
#include <vector>

#include <doctest/doctest.h>

using namespace exo;

namespace {

constexpr std::uint64_t page = 4096;

// RAM at [0, 16 KiB), of which each byte is its address modulo 251.
class Ram final : public PhysicalMemory {
public:
    static constexpr std::size_t size = 4 * page;
    Ram() : bytes(size) {
        for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i % 251);
    }
    Result<std::size_t> read_some(PhysicalAddress address, MutableBytes out) override {
        if (raw(address) >= size) return fail(Errc::bad_address, "hole at " + hex(address));
        const auto count = std::min<std::size_t>({out.size(), size - raw(address), most});
        std::memcpy(out.data(), bytes.data() + raw(address), count);
        return count;
    }
    Result<std::size_t> write_some(PhysicalAddress address, ConstBytes in) override {
        if (raw(address) >= size) return fail(Errc::bad_address, "hole at " + hex(address));
        const auto count = std::min<std::size_t>({in.size(), size - raw(address), most});
        std::memcpy(bytes.data() + raw(address), in.data(), count);
        return count;
    }
    [[nodiscard]] std::span<const MemoryRegion> regions() const override { return {}; }

    std::vector<std::byte> bytes;
    std::size_t most = size;  // in one call
};

class Pages final : public AddressSpace {
public:
    explicit Pages(PhysicalMemory& memory) : memory_(memory) {}
    Result<Translation> translate(VirtualAddress address) override {
        const auto it = pages.find(raw(address) / page);
        if (it == pages.end()) return fail(Errc::bad_address, hex(address) + " is not mapped");
        Translation translation = it->second;
        translation.physical = translation.physical + raw(address) % page;
        return translation;
    }
    [[nodiscard]] PhysicalMemory& physical() override { return memory_; }
    std::optional<VirtualAddress> next_mapped(VirtualAddress address) override {
        const auto it = pages.lower_bound((raw(address) + page - 1) / page);
        if (it == pages.end()) return std::nullopt;
        return VirtualAddress{it->first * page};
    }
    void map(std::uint64_t virtual_page, std::uint64_t physical, bool writable = true) {
        pages[virtual_page] = {
            .physical = PhysicalAddress{physical}, .page_size = page, .writable = writable};
    }

    std::map<std::uint64_t, Translation> pages;  // by virtual page number

private:
    PhysicalMemory& memory_;
};

}  // namespace

TEST_CASE("hex") {
    CHECK(hex(std::uint64_t{0}) == "0x0");
    CHECK(hex(VirtualAddress{0xffffffff81000000}) == "0xffffffff81000000");
    CHECK(hex(PhysicalAddress{~std::uint64_t{0}}) == "0xffffffffffffffff");
}

TEST_CASE("a physical read is all or an error that names the first byte that failed") {
    Ram ram;
    ram.most = 100;  // a backend may give less than was asked for
    std::array<std::byte, 300> out{};
    REQUIRE(ram.read(PhysicalAddress{1000}, out).has_value());
    for (std::size_t i = 0; i < out.size(); ++i) CHECK(out[i] == static_cast<std::byte>((1000 + i) % 251));

    const auto beyond = ram.read(PhysicalAddress{Ram::size - 10}, out);
    REQUIRE_FALSE(beyond.has_value());
    CHECK(beyond.error().code == Errc::bad_address);
    CHECK(beyond.error().message.find("0x4000") != std::string::npos);
    CHECK(ram.read(PhysicalAddress{Ram::size}, MutableBytes{}).has_value());
}

TEST_CASE("reads cross pages that are not neighbours in memory") {
    Ram ram;
    Pages space{ram};
    space.map(16, 0x2000);
    space.map(17, 0x0000);
    std::array<std::byte, 8> out{};
    REQUIRE(space.read(VirtualAddress{17 * page - 4}, out).has_value());
    for (std::size_t i = 0; i < 4; ++i) {
        CHECK(out[i] == static_cast<std::byte>((0x2ffc + i) % 251));
        CHECK(out[4 + i] == static_cast<std::byte>(i));
    }
}

TEST_CASE("read_some stops where the mapping ends, and fails only at the first byte") {
    Ram ram;
    Pages space{ram};
    space.map(16, 0x1000);
    std::array<std::byte, 64> out{};
    const auto some = space.read_some(VirtualAddress{17 * page - 10}, out);
    REQUIRE(some.has_value());
    CHECK(*some == 10);
    const auto none = space.read_some(VirtualAddress{17 * page}, out);
    REQUIRE_FALSE(none.has_value());
    CHECK(none.error().code == Errc::bad_address);
    CHECK(space.read_some(VirtualAddress{17 * page}, MutableBytes{}).value_or(9) == 0);

    // Mapped, but to what is no RAM.
    space.map(17, Ram::size);
    CHECK(space.read_some(VirtualAddress{17 * page - 10}, out).value_or(0) == 10);
    CHECK_FALSE(space.read_some(VirtualAddress{17 * page}, out).has_value());
    const auto all = space.read(VirtualAddress{17 * page - 10}, out);
    REQUIRE_FALSE(all.has_value());
    CHECK(all.error().message.find("0x11000") != std::string::npos);
}

TEST_CASE("nothing lies behind the last address") {
    Ram ram;
    Pages space{ram};
    space.map(0, 0x1000);
    space.map(~std::uint64_t{0} / page, 0x2000);
    std::array<std::byte, 64> out{};
    CHECK(space.read_some(VirtualAddress{~std::uint64_t{0} - 3}, out).value_or(0) == 4);
    CHECK_FALSE(space.read(VirtualAddress{~std::uint64_t{0} - 3}, out).has_value());
}

TEST_CASE("writes cross pages too") {
    Ram ram;
    Pages space{ram};
    space.map(16, 0x2000);
    space.map(17, 0x0000);
    constexpr std::array<std::byte, 4> in{std::byte{0xa1}, std::byte{0xa2}, std::byte{0xa3}, std::byte{0xa4}};
    REQUIRE(space.write(VirtualAddress{17 * page - 2}, in).has_value());
    CHECK(ram.bytes[0x2ffe] == in[0]);
    CHECK(ram.bytes[0x2fff] == in[1]);
    CHECK(ram.bytes[0] == in[2]);
    CHECK(ram.bytes[1] == in[3]);
    CHECK_FALSE(space.write(VirtualAddress{18 * page - 2}, in).has_value());
}

TEST_CASE("values and strings") {
    Ram ram;
    Pages space{ram};
    space.map(1, 0);
    const std::uint32_t value = 0x12345678;
    std::memcpy(ram.bytes.data() + 8, &value, sizeof value);
    CHECK(space.read_value<std::uint32_t>(VirtualAddress{page + 8}).value_or(0) == value);
    CHECK_FALSE(space.read_value<std::uint32_t>(VirtualAddress{2 * page - 3}).has_value());

    constexpr std::string_view text = "swapper";
    std::memcpy(ram.bytes.data() + page - 7, text.data(), text.size());
    // Unreadable memory ends a string; the limit does too.
    CHECK(space.read_string(VirtualAddress{2 * page - 7}, 16).value_or("") == "swapper");
    CHECK(space.read_string(VirtualAddress{2 * page - 7}, 4).value_or("") == "swap");
    ram.bytes[page - 4] = std::byte{0};
    CHECK(space.read_string(VirtualAddress{2 * page - 7}, 16).value_or("") == "swa");
    CHECK_FALSE(space.read_string(VirtualAddress{3 * page}, 16).has_value());
}

TEST_CASE("mapped ranges") {
    Ram ram;
    Pages space{ram};
    space.map(16, 0);
    space.map(17, 0x2000);
    space.map(18, 0x1000, false);

    MappedRange range = mapped_range(space, VirtualAddress{16 * page + 5});
    CHECK(range.start == VirtualAddress{16 * page});
    CHECK(range.size == 2 * page);  // up to the page with other permissions
    REQUIRE(range.mapping.has_value());
    CHECK(range.mapping->writable);

    range = mapped_range(space, VirtualAddress{18 * page});
    CHECK(range.size == page);
    REQUIRE(range.mapping.has_value());
    CHECK_FALSE(range.mapping->writable);

    range = mapped_range(space, VirtualAddress{3 * page + 1});
    CHECK(range.start == VirtualAddress{3 * page});
    CHECK(range.size == 13 * page);
    CHECK_FALSE(range.mapping.has_value());

    range = mapped_range(space, VirtualAddress{19 * page});
    CHECK(range.size > page);
    CHECK_FALSE(range.mapping.has_value());
}

TEST_CASE("a mapped range is never of size 0, at the end of the address space neither") {
    Ram ram;
    Pages space{ram};
    const VirtualAddress last{~std::uint64_t{0} & ~(page - 1)};
    MappedRange range = mapped_range(space, last + 7);
    CHECK(range.start == last);
    CHECK(range.size == page);
    CHECK_FALSE(range.mapping.has_value());

    // Mapped, and so is address 0, which does not come after it.
    space.map(raw(last) / page, 0);
    space.map(0, page);
    range = mapped_range(space, last);
    CHECK(range.size == page);
    CHECK(range.mapping.has_value());
}
