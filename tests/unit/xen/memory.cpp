#include "backends/xen/memory.h"

#include <doctest/doctest.h>

#include "backends/xen/layout.h"
#include "tests/unit/xen/fake_frames.h"

using namespace exo;
using namespace exo::xen;
using test::FakeFrames;

namespace {

std::vector<std::byte> bytes(std::size_t count) { return std::vector<std::byte>(count); }

void fill(FakeFrames& frames, std::uint64_t first, std::uint64_t end) {
    for (auto frame = first; frame < end; ++frame) frames.put(frame, 0, frame);
}

std::vector<MemoryRegion> memory_of(std::uint64_t frames) {
    return regions_of_hvm({.frames = frames, .highest = frames - 1});
}

std::uint64_t first_word(ForeignMemory& memory, std::uint64_t frame) {
    std::uint64_t word = 0;
    const auto read =
        memory.read(PhysicalAddress{frame << page_shift}, std::as_writable_bytes(std::span{&word, 1}));
    return read ? word : no_frame;
}

}  // namespace

TEST_CASE("xen memory: what lies in one window is mapped once") {
    FakeFrames frames;
    fill(frames, 0, 1024);
    ForeignMemory memory{frames, nullptr, memory_of(1024), {}};
    memory.stands(1024);
    CHECK(first_word(memory, 3) == 3);
    CHECK(first_word(memory, 511) == 511);
    CHECK(memory.costs().calls == 1);
    CHECK(memory.costs().frames == 512);
    CHECK(first_word(memory, 512) == 512);
    CHECK(memory.costs().calls == 2);
}

TEST_CASE("xen memory: a read across windows is one") {
    FakeFrames frames;
    fill(frames, 0, 1024);
    ForeignMemory memory{frames, nullptr, memory_of(1024), {}};
    auto out = bytes(2 * page_bytes);
    CHECK(memory.read_some(PhysicalAddress{511 << page_shift}, out) == 2 * page_bytes);
    CHECK(std::to_integer<unsigned>(out[page_bytes]) == 0);
    CHECK(std::to_integer<unsigned>(out[page_bytes + 1]) == 2);  // 512
}

TEST_CASE("xen memory: a hole ends a read, and bytes of it are never made up") {
    FakeFrames frames;
    fill(frames, 0, 16);
    frames.remove(5);
    ForeignMemory memory{frames, nullptr, memory_of(16), {}};
    auto out = bytes(4 * page_bytes);
    CHECK(memory.read_some(PhysicalAddress{4 << page_shift}, out) == page_bytes);
    const auto hole = memory.read_some(PhysicalAddress{5 << page_shift}, out);
    REQUIRE_FALSE(hole);
    CHECK(hole.error().code == Errc::bad_address);
    CHECK(hole.error().message.find("hole") != std::string::npos);
    CHECK(memory.read_some(PhysicalAddress{15 << page_shift}, out) == page_bytes);  // the end
    const auto beyond = memory.read_some(PhysicalAddress{16 << page_shift}, out);
    REQUIRE_FALSE(beyond);
    CHECK(beyond.error().message.find("no memory") != std::string::npos);
    CHECK(memory.read_some(PhysicalAddress{16 << page_shift}, {}) == 0);
}

TEST_CASE("xen memory: no frame outside of memory is asked for") {
    FakeFrames frames;
    fill(frames, 0, 512);  // as if a device's lay behind the guest's 16 frames
    ForeignMemory memory{frames, nullptr, regions_of_hvm({.frames = 16, .highest = 511}), {}};
    CHECK(first_word(memory, 15) == 15);
    CHECK(memory.costs().frames == 16);
    CHECK(first_word(memory, 16) == no_frame);
}

TEST_CASE("xen memory: windows are bounded, the least recently used gives way") {
    FakeFrames frames;
    constexpr std::uint64_t count = (ForeignMemory::most_windows + 2) * ForeignMemory::window_frames;
    ForeignMemory memory{frames, nullptr, memory_of(count), {}};
    memory.stands(count);
    for (std::uint64_t i = 0; i < count; i += ForeignMemory::window_frames) {
        frames.put(i, 0, i);
        CHECK(first_word(memory, i) == i);
    }
    CHECK(memory.windows() == ForeignMemory::most_windows);
    CHECK(frames.mapped() == ForeignMemory::most_windows);
    const auto calls = memory.costs().calls;
    CHECK(first_word(memory, count - 1 - 511) == count - 512);
    CHECK(memory.costs().calls == calls);
    CHECK(first_word(memory, 0) == 0);
    CHECK(memory.costs().calls == calls + 1);
}

TEST_CASE("xen memory: mappings outlive a step, not a balloon and not a long run") {
    FakeFrames frames;
    fill(frames, 0, 16);
    ForeignMemory::Clock::time_point now{};
    ForeignMemory memory{frames, nullptr, memory_of(16), {.now = [&] { return now; }}};
    memory.stands(16);
    CHECK(first_word(memory, 1) == 1);
    memory.runs();
    now += ForeignMemory::trusted_run / 2;
    memory.stands(16);
    CHECK(memory.windows() == 1);
    SUBCASE("it has other memory now") {
        memory.runs();
        frames.remove(1);
        memory.stands(15);
        CHECK(first_word(memory, 1) == no_frame);
    }
    SUBCASE("it ran for long") {
        memory.runs();
        now += ForeignMemory::trusted_run * 2 / 3;  // in all, more than is trusted
        frames.put(1, 0, 99);
        memory.stands(16);
        CHECK(first_word(memory, 1) == 99);
    }
    SUBCASE("it runs") {
        memory.runs();
        now += ForeignMemory::trusted_run * 2 / 3;  // in all, more than is trusted
        frames.put(1, 0, 99);
        CHECK(first_word(memory, 1) == 99);
    }
}

TEST_CASE("xen memory: nothing stays mapped that nobody asks for") {
    FakeFrames frames;
    fill(frames, 0, 16);
    ForeignMemory memory{frames, nullptr, memory_of(16), {}};
    CHECK(first_word(memory, 1) == 1);
    CHECK(frames.mapped() == 1);
    memory.release();
    CHECK(frames.mapped() == 0);
    CHECK(first_word(memory, 1) == 1);
}

TEST_CASE("xen memory: writes") {
    FakeFrames frames;
    fill(frames, 0, 16);
    ForeignMemory memory{frames, nullptr, memory_of(16), {}};
    const std::array<std::byte, 4> value{std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
    CHECK(memory.write(PhysicalAddress{(2 << page_shift) - 2}, value));
    CHECK(std::to_integer<int>(frames.page(1)[page_bytes - 1]) == 2);
    CHECK(std::to_integer<int>(frames.page(2)[0]) == 3);
    CHECK(frames.mapped() == 0);
    CHECK_FALSE(memory.write_some(PhysicalAddress{16 << page_shift}, value));
    frames.remove(3);
    CHECK_FALSE(memory.write_some(PhysicalAddress{3 << page_shift}, value));
}

TEST_CASE("xen memory: where each frame comes to be when it is touched, no other is") {
    FakeFrames frames;
    fill(frames, 0, 16);
    ForeignMemory memory{frames, nullptr, memory_of(16), {.small = true}};
    CHECK(first_word(memory, 1) == 1);
    CHECK(first_word(memory, 2) == 2);
    CHECK(memory.costs().frames == 2);
}

TEST_CASE("xen memory: where it lies") {
    const auto small = regions_of_hvm({.frames = 0x8000, .highest = 0xfefff});
    REQUIRE(small.size() == 1);
    CHECK(small[0].size == 0x8000ULL << page_shift);
    // 4 GiB: the rest lies above the hole.
    const auto large = regions_of_hvm({.frames = 0x100000, .highest = 0x100007});
    REQUIRE(large.size() == 2);
    CHECK(large[0].size == 0xfeff8ULL << page_shift);
    CHECK(raw(large[1].start) == 1ULL << 32);
    CHECK(large[1].size == 8ULL << page_shift);
    const auto devices = regions_of_hvm({.frames = 0x100000, .highest = 0x10ffff, .has_devices = true});
    REQUIRE(devices.size() == 2);
    CHECK(devices[0].size == 0xf0000ULL << page_shift);
    CHECK(devices[1].size == 0x10000ULL << page_shift);
    CHECK(regions_of_pv(0).empty());
}
