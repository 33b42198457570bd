#include "os-awareness/linux/image_window.h"

#include <doctest/doctest.h>

#include "tests/support/guest_builder.h"

using namespace exo;
using namespace exo::os;
using namespace exo::test;

namespace {

constexpr std::uint64_t small_page = 4096;

std::string text_of(const std::optional<ImageWindow>& window) {
    if (!window) return "none";
    return hex(window->start) + "-" + hex(window->end) + " at " + hex(window->physical) + ", " +
           hex(window->mapped) + " mapped";
}

}  // namespace

TEST_CASE("image window: the image, with holes in it") {
    GuestBuilder guest{{.slide = 0, .image_bytes = 4 << 20, .leaf_bytes = small_page}};
    PageTables tables{guest.memory(), guest.kernel_root(), guest.options().mode};
    CHECK(text_of(find_image_window(tables)) ==
          "0xffffffff81000000-0xffffffff81400000 at 0x2800000, 0x400000 mapped");
    for (std::uint64_t at = 0x10'0000; at < 0x18'0000; at += small_page)
        guest.unmap(guest.kernel_root(), guest.text() + at, small_page);
    tables.forget();
    CHECK(text_of(find_image_window(tables)) ==
          "0xffffffff81000000-0xffffffff81400000 at 0x2800000, 0x380000 mapped");
}

TEST_CASE("image window: modules in the window are not the image, however many") {
    GuestBuilder guest{{.slide = 0, .image_bytes = 4 << 20}};
    for (std::uint64_t i = 0; i < 500; ++i) {
        guest.map(guest.kernel_root(), VirtualAddress{0xffff'ffff'a000'0000 + i * small_page},
                  PhysicalAddress{i * 3 % 500 * small_page}, small_page);
    }
    PageTables tables{guest.memory(), guest.kernel_root(), guest.options().mode};
    CHECK(text_of(find_image_window(tables)) ==
          "0xffffffff81000000-0xffffffff81400000 at 0x2800000, 0x400000 mapped");
}

TEST_CASE("image window: nothing is mapped there") {
    GuestBuilder guest;
    PageTables tables{guest.memory(), PhysicalAddress{0x8000}, guest.options().mode};
    CHECK(text_of(find_image_window(tables)) == "none");
}

TEST_CASE("image window: what cannot be read of it is zeros, what is behind it is read") {
    FakeMemory memory;
    memory.add_ram(PhysicalAddress{0}, small_page);
    memory.add_ram(PhysicalAddress{3 * small_page}, small_page);
    memory.put_text(PhysicalAddress{0}, "first");
    memory.put_text(PhysicalAddress{3 * small_page}, "last");
    const ImageWindow window{kernel_window, kernel_window + 5 * small_page, PhysicalAddress{0},
                             5 * small_page};
    const auto bytes = read_image(memory, window, 1 << 20);
    REQUIRE(bytes.size() == 5 * small_page);
    const std::string_view text{reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    CHECK(text.substr(0, 5) == "first");
    CHECK(text.substr(3 * small_page, 4) == "last");
    CHECK(text.substr(small_page, 2 * small_page) == std::string(2 * small_page, '\0'));
    CHECK(read_image(memory, window, small_page).size() == small_page);
}
