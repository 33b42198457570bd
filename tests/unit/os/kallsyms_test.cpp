#include "os-awareness/linux/kallsyms.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "tests/support/kallsyms_writer.h"

using namespace exo;
using namespace exo::os;
using namespace exo::test;

namespace {

constexpr VirtualAddress image_start{0xffff'ffff'9a40'0000};
constexpr std::size_t banner_at = 0x1000;
constexpr std::size_t tables_at = 0x2'0000;

// An image of the kernel: its banner, and kallsyms tables somewhere behind it.
struct Image {
    std::vector<std::byte> bytes;
    WrittenKallsyms tables;
    std::vector<NamedSymbol> symbols;

    void put(std::size_t at, const std::string& value) {
        std::memcpy(bytes.data() + at, value.data(), value.size());
    }
};

std::vector<NamedSymbol> many_symbols() {
    std::vector<NamedSymbol> symbols{
        {raw(image_start), 'T', "_text"},
        {raw(image_start), 'T', "_stext"},
        {raw(image_start) + banner_at, 'D', "linux_banner"},
    };
    for (std::uint64_t i = 0; i < 600; ++i) {
        symbols.push_back(
            {raw(image_start) + 0x1'0000 + i * 16, 't', "do_something_" + std::to_string(i * 7919)});
        // Aliases: a table in which each entry grows would hide a wrong reading of it.
        if (i % 3 == 0)
            symbols.push_back({raw(image_start) + 0x1'0000 + i * 16, 'T', "__x64_sys_" + std::to_string(i)});
    }
    return symbols;
}

Image make_image(const KallsymsShape& shape, std::vector<NamedSymbol> symbols,
                 std::string before_tables = {}) {
    Image image;
    image.symbols = symbols;
    image.bytes.resize(tables_at);
    image.put(banner_at, "Linux version 6.1.0-test (x@y) #1\n");
    image.tables = write_kallsyms(shape, std::move(symbols), raw(image_start), image_start + tables_at);
    image.put(tables_at - before_tables.size(), before_tables);
    image.bytes.insert(image.bytes.end(), image.tables.bytes.begin(), image.tables.bytes.end());
    image.bytes.resize(image.bytes.size() + 4096);
    return image;
}

void check_all(const Image& image, const Kallsyms& found) {
    REQUIRE(found.symbols.by_address().size() == image.symbols.size());
    std::string wrong;
    for (const auto& symbol : image.symbols) {
        const auto address = found.symbols.find(symbol.name);
        if (!address || raw(*address) != symbol.address) wrong = symbol.name;
    }
    CHECK(wrong == "");
}

struct Version {
    const char* name;
    KallsymsShape shape;
};
const auto versions = std::to_array<Version>({
    {"2.6", kallsyms_of::v2_6},
    {"4.6", kallsyms_of::v4_6},
    {"4.20", kallsyms_of::v4_20},
    {"6.1", kallsyms_of::v6_1},
    {"6.1 stable, sequence numbers", kallsyms_of::v6_1_stable},
    {"6.2, 4-byte sequence numbers", kallsyms_of::v6_2_first},
    {"6.4", kallsyms_of::v6_4},
    {"6.15", kallsyms_of::v6_15},
    {"7.0", kallsyms_of::v7_0},
});

}  // namespace

TEST_CASE("kallsyms: every layout is told from the data alone") {
    for (const auto& version : versions) {
        CAPTURE(version.name);
        const auto image = make_image(version.shape, many_symbols());
        const auto found = parse_kallsyms(image.bytes, image_start);
        REQUIRE_MESSAGE(found, (found ? "" : found.error().message));
        CHECK(found->encoding == version.shape.encoding);
        CHECK(found->addresses_first == version.shape.addresses_first);
        CHECK(found->names.marker_bytes == version.shape.marker_bytes);
        CHECK(found->names.begin == tables_at + image.tables.names);
        CHECK(found->names.markers == tables_at + image.tables.markers);
        CHECK(found->verified_by == "linux_banner, _text, _stext");
        check_all(image, *found);
    }
}

TEST_CASE("kallsyms: any number of symbols, so that every padding between tables occurs") {
    for (const auto& version : versions) {
        for (std::size_t extra = 0; extra < 5; ++extra) {
            CAPTURE(version.name);
            CAPTURE(extra);
            auto symbols = many_symbols();
            for (std::size_t i = 0; i < extra; ++i) {
                symbols.push_back({raw(image_start) + 0x1'f000 + i, 'b', "x" + std::string(i, 'y')});
            }
            const auto image = make_image(version.shape, std::move(symbols));
            const auto found = parse_kallsyms(image.bytes, image_start);
            REQUIRE(found);
            check_all(image, *found);
        }
    }
}

TEST_CASE("kallsyms: per-CPU symbols of absolute-percpu kernels are small numbers") {
    auto symbols = many_symbols();
    symbols.push_back({0, 'A', "fixed_percpu_data"});
    symbols.push_back({0x1fbc0, 'A', "current_task"});
    for (const auto& shape : {kallsyms_of::v4_6, kallsyms_of::v6_1, kallsyms_of::v6_4}) {
        const auto image = make_image(shape, symbols);
        const auto found = parse_kallsyms(image.bytes, image_start);
        REQUIRE(found);
        CHECK(found->encoding == AddressEncoding::absolute_percpu);
        check_all(image, *found);
        CHECK(found->symbols.by_address().front().type == 'A');
    }
}

// Names of Rust and C++ symbols: more than 127 tokens since 6.1 take two bytes of length, before it one.
TEST_CASE("kallsyms: a name of 128 tokens or more") {
    std::string longest;
    // No pair of characters twice, so that no token longer than a character fits often.
    for (int i = 0; i < 150; ++i) longest += static_cast<char>('!' + (i * 37 + i / 90 * 11) % 90);
    auto symbols = many_symbols();
    symbols.push_back({raw(image_start) + 0x1'2008, 't', longest});
    for (const auto length : {NameLength::uleb128, NameLength::one_byte}) {
        auto shape = kallsyms_of::v6_1;
        shape.length = length;
        const auto image = make_image(shape, symbols);
        const auto found = parse_kallsyms(image.bytes, image_start);
        REQUIRE(found);
        CHECK(found->names.length == length);
        CHECK(found->symbols.find(longest) == VirtualAddress{raw(image_start) + 0x1'2008});
        check_all(image, *found);
    }
}

TEST_CASE("kallsyms: printable bytes right before the tables do not move their start") {
    auto shape = kallsyms_of::v7_0;
    const auto image = make_image(shape, many_symbols(), "abc\0d\0printable");
    const auto found = parse_kallsyms(image.bytes, image_start);
    REQUIRE(found);
    check_all(image, *found);
}

TEST_CASE("kallsyms: other token tables are passed over") {
    // A whole table of another kernel, whose symbols do not agree with this image, and a lone row of digits.
    auto strangers = many_symbols();
    for (auto& symbol : strangers) symbol.address += 0x40'0000;
    const auto stranger =
        write_kallsyms(kallsyms_of::v6_1, strangers, raw(image_start) + 0x40'0000, image_start);
    const std::string digits{"0\0001\0002\0003\0004\0005\0006\0007\0008\0009\0:\0", 22};
    SUBCASE("behind") {
        auto image = make_image(kallsyms_of::v6_4, many_symbols());
        image.put(0x4000, digits);
        image.bytes.insert(image.bytes.end(), stranger.bytes.begin(), stranger.bytes.end());
        const auto found = parse_kallsyms(image.bytes, image_start);
        REQUIRE(found);
        check_all(image, *found);
    }
    SUBCASE("before") {
        Image image{std::vector<std::byte>(tables_at), {}, many_symbols()};
        image.put(banner_at, "Linux version 6.1.0-test (x@y) #1\n");
        image.put(0x4000, digits);
        image.bytes.insert(image.bytes.end(), stranger.bytes.begin(), stranger.bytes.end());
        image.bytes.resize((image.bytes.size() + 4095) / 4096 * 4096);
        const auto own = write_kallsyms(kallsyms_of::v6_4, image.symbols, raw(image_start),
                                        image_start + image.bytes.size());
        image.bytes.insert(image.bytes.end(), own.bytes.begin(), own.bytes.end());
        const auto found = parse_kallsyms(image.bytes, image_start);
        REQUIRE(found);
        check_all(image, *found);
    }
}

TEST_CASE("kallsyms: without linux_banner _text must be where the image begins") {
    auto symbols = many_symbols();
    std::erase_if(symbols, [](const NamedSymbol& s) { return s.name == "linux_banner"; });
    for (const auto& version : versions) {
        CAPTURE(version.name);
        const auto image = make_image(version.shape, symbols);
        const auto found = parse_kallsyms(image.bytes, image_start);
        REQUIRE(found);
        CHECK(found->encoding == version.shape.encoding);
        check_all(image, *found);
        // At another address only what is relative to its own place still fits.
        const bool movable = version.shape.encoding == AddressEncoding::place_relative;
        CHECK(parse_kallsyms(image.bytes, image_start + 0x20'0000).has_value() == movable);
    }
}

TEST_CASE("kallsyms: a table whose symbols do not agree with the image is refused") {
    auto image = make_image(kallsyms_of::v6_4, many_symbols());
    image.put(banner_at, "Something else");
    const auto found = parse_kallsyms(image.bytes, image_start);
    REQUIRE(!found);
    CHECK(found.error().code == Errc::bad_data);
    CHECK(found.error().message.find("no address table that agrees") != std::string::npos);
}

TEST_CASE("kallsyms: what is broken is refused, and the message says what") {
    SUBCASE("no table") {
        const std::vector<std::byte> nothing(1 << 16);
        const auto found = parse_kallsyms(nothing, image_start);
        REQUIRE(!found);
        CHECK(found.error().code == Errc::not_found);
        CHECK(!parse_kallsyms({}, image_start));
    }
    SUBCASE("a marker that no name meets") {
        auto image = make_image(kallsyms_of::v6_4, many_symbols());
        auto& marker = image.bytes[tables_at + image.tables.markers + 4];
        marker = marker ^ std::byte{1};
        const auto found = parse_kallsyms(image.bytes, image_start);
        REQUIRE(!found);
        CHECK(found.error().message.find("no names and markers") != std::string::npos);
    }
    SUBCASE("a token index that is not that of the table") {
        auto image = make_image(kallsyms_of::v6_4, many_symbols());
        auto& entry = image.bytes[tables_at + image.tables.token_index + 40];
        entry = entry ^ std::byte{1};
        const auto found = parse_kallsyms(image.bytes, image_start);
        REQUIRE(!found);
        CHECK(found.error().code == Errc::not_found);
    }
    SUBCASE("addresses that are not sorted") {
        auto image = make_image(kallsyms_of::v7_0, many_symbols());
        image.bytes[tables_at + image.tables.addresses + 4 * 500 + 2] ^= std::byte{0x7f};
        CHECK(!parse_kallsyms(image.bytes, image_start));
    }
    SUBCASE("cut off anywhere") {
        const auto image = make_image(kallsyms_of::v6_4, many_symbols());
        const std::size_t end = tables_at + image.tables.addresses + 4 * image.symbols.size();
        for (std::size_t size = tables_at; size < end; size += 997) {
            CHECK(!parse_kallsyms(ConstBytes{image.bytes}.first(size), image_start));
        }
    }
}

// A chain of lengths that begins well at every place, rows of digits everywhere: bounded, whatever the data.
TEST_CASE("kallsyms: hostile images cost no more than bounded time") {
    std::vector<std::byte> bytes(1 << 20);
    const std::string_view digits{"0\0001\0002\0003\0004\0005\0006\0007\0008\0009\0", 20};
    for (std::size_t i = 0; i < bytes.size(); ++i)
        bytes[i] = static_cast<std::byte>(digits[i % digits.size()]);
    CHECK(!parse_kallsyms(bytes, image_start));
    const auto image = make_image(kallsyms_of::v6_4, many_symbols());
    std::vector<std::byte> hostile(2 << 20);
    for (std::size_t i = 0; i + 8 <= hostile.size(); i += 8) {
        const std::uint64_t markers = 1024ULL << 32;  // 0, 1024
        std::memcpy(hostile.data() + i, &markers, 8);
    }
    const auto tail = ConstBytes{image.tables.bytes}.subspan(image.tables.token_table);
    hostile.insert(hostile.end(), tail.begin(), tail.end());
    CHECK(!parse_kallsyms(hostile, image_start));
}
