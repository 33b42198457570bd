#include "os-awareness/page_cache.h"

#include <doctest/doctest.h>

#include <array>
#include <string>

#include "tests/support/fake_memory.h"

using namespace exo;
using namespace exo::os;
using exo::test::FakeMemory;

namespace {

std::string text_at(PhysicalMemory& memory, std::uint64_t address, std::size_t size) {
    std::string bytes(size, '?');
    const auto count = memory.read_some(PhysicalAddress{address}, std::as_writable_bytes(std::span{bytes}));
    return count ? bytes.substr(0, *count) : "error";
}

}  // namespace

TEST_CASE("page cache: each page is read once, until invalidate()") {
    FakeMemory memory;
    memory.add_ram(PhysicalAddress{0}, 1 << 16);
    memory.put_text(PhysicalAddress{0x1ffe}, "abcd");
    PageCache cache{memory};
    CHECK(text_at(cache, 0x1ffe, 4) == "abcd");
    CHECK(memory.reads() == 2);
    memory.put_text(PhysicalAddress{0x1ffe}, "wxyz");
    CHECK(text_at(cache, 0x1ffe, 2) == "ab");
    CHECK(text_at(cache, 0x2000, 2) == "cd");
    CHECK(memory.reads() == 2);
    cache.invalidate();
    CHECK(text_at(cache, 0x1ffe, 4) == "wxyz");
}

TEST_CASE("page cache: a page that is filled again holds nothing of what it held") {
    FakeMemory memory;
    memory.add_ram(PhysicalAddress{0}, 0x3800);
    memory.put_text(PhysicalAddress{0x1000}, "old");
    PageCache cache{memory, 1};
    CHECK(text_at(cache, 0x1000, 3) == "old");
    CHECK(text_at(cache, 0x37fe, 10).size() == 2);  // memory ends in this page
    CHECK(text_at(cache, 0x3900, 3) == "error");
    CHECK(text_at(cache, 0x4000, 3) == "error");
    CHECK(text_at(cache, 0x1000, 3) == "old");
    cache.invalidate();
    memory.put_text(PhysicalAddress{0x1000}, "new");
    CHECK(text_at(cache, 0x1000, 3) == "new");
    CHECK(text_at(cache, 0x1ffe, 2).size() == 2);
}

TEST_CASE("page cache: the least recently used page gives way") {
    FakeMemory memory;
    memory.add_ram(PhysicalAddress{0}, 1 << 16);
    PageCache cache{memory, 2};
    for (const std::uint64_t page : {1, 2, 1, 3, 1}) text_at(cache, page << 12, 8);
    CHECK(memory.reads() == 3);
    text_at(cache, 2 << 12, 8);
    CHECK(memory.reads() == 4);
}

TEST_CASE("page cache: holes and borders are what memory says") {
    FakeMemory memory;
    memory.add_ram(PhysicalAddress{0}, 0x1800);
    memory.add_ram(PhysicalAddress{0x4800}, 0x800);
    memory.put_text(PhysicalAddress{0x17fe}, "ab");
    memory.put_text(PhysicalAddress{0x4800}, "cd");
    PageCache cache{memory};
    CHECK(text_at(cache, 0x17fe, 10) == "ab");
    CHECK(text_at(cache, 0x1800, 10) == "error");
    CHECK(text_at(cache, 0x3000, 10) == "error");
    CHECK(text_at(cache, 0x4800, 2) == "cd");
    CHECK(text_at(cache, 0x5000, 1) == "error");
    CHECK(text_at(cache, 0x3000, 0) == "");
    CHECK(cache.regions().size() == 2);
}

TEST_CASE("page cache: bulk reads go past it, writes through it") {
    FakeMemory memory;
    memory.add_ram(PhysicalAddress{0}, 1 << 16);
    memory.put_text(PhysicalAddress{0x2ffe}, "abcd");
    PageCache cache{memory};
    CHECK(text_at(cache, 0x2ffe, 4) == "abcd");
    const std::array<std::byte, 2> in{std::byte{'X'}, std::byte{'Y'}};
    REQUIRE(cache.write_some(PhysicalAddress{0x2fff}, in));
    CHECK(text_at(memory, 0x2ffe, 4) == "aXYd");
    CHECK(text_at(cache, 0x2ffe, 4) == "aXYd");

    memory.put_text(PhysicalAddress{0x2ffe}, "1234");
    CHECK(text_at(cache, 0x2000, PageCache::bulk).substr(0xffe, 4) == "1234");
    const auto before = memory.reads();
    CHECK(text_at(cache, 0x2000, PageCache::bulk).size() == PageCache::bulk);
    CHECK(memory.reads() == before + 1);
}

TEST_CASE("page cache: the first read after a stop brings what was asked for at the one before") {
    FakeMemory memory;
    memory.add_ram(PhysicalAddress{0}, 0x3800);
    memory.put_text(PhysicalAddress{0x1000}, "one");
    memory.put_text(PhysicalAddress{0x2000}, "two");
    PageCache cache{memory};
    for (const std::uint64_t at : {0x1000, 0x2000, 0x37fe}) text_at(cache, at, 2);
    CHECK(memory.reads() == 3);
    cache.invalidate();
    cache.invalidate();  // nothing was asked for in between
    memory.put_text(PhysicalAddress{0x1000}, "new");
    CHECK(text_at(cache, 0x1000, 3) == "new");
    CHECK(text_at(cache, 0x37fe, 10).size() == 2);  // memory ends in this page
    CHECK(memory.reads() == 4);

    cache.invalidate();  // the second page was not asked for
    CHECK(text_at(cache, 0x1000, 3) == "new");
    CHECK(memory.reads() == 5);
    CHECK(text_at(cache, 0x37fe, 10).size() == 2);
    CHECK(memory.reads() == 5);
    CHECK(text_at(cache, 0x2000, 3) == "two");
    CHECK(memory.reads() == 6);
}

TEST_CASE("page cache: no more pages are expected than there is room for") {
    FakeMemory memory;
    memory.add_ram(PhysicalAddress{0}, 1 << 16);
    memory.put_text(PhysicalAddress{0x3000}, "three");
    PageCache cache{memory, 2};
    for (const std::uint64_t page : {1, 2, 3}) text_at(cache, page << 12, 8);
    cache.invalidate();
    CHECK(text_at(cache, 0x3000, 5) == "three");
    CHECK(text_at(cache, 0x1000, 1).size() == 1);
    CHECK(memory.reads() == 5);
}
