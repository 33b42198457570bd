// A whole kallsyms, in one of the layouts, with some bytes changed: the way to the depths that random bytes
// do not find. A change outside of the tables changes nothing; one inside is noticed, or a table in order
// comes out.
#include <array>
#include <string>
#include <vector>

#include "fuzz.h"
#include "os-awareness/linux/kallsyms.h"
#include "tests/support/kallsyms_writer.h"

namespace {

using namespace exo;
using namespace exo::test;

constexpr VirtualAddress text{0xffff'ffff'8100'0000};
constexpr std::size_t tables_at = 0x1000;
constexpr auto shapes = std::to_array<KallsymsShape>({
    kallsyms_of::v2_6,
    kallsyms_of::v4_6,
    kallsyms_of::v4_20,
    kallsyms_of::v6_1,
    kallsyms_of::v6_1_stable,
    kallsyms_of::v6_2_first,
    kallsyms_of::v6_4,
    kallsyms_of::v6_15,
    kallsyms_of::v7_0,
});

std::vector<std::byte> make_image(const KallsymsShape& shape) {
    std::vector<NamedSymbol> symbols{{raw(text), 'T', "_text"}, {raw(text) + 0x100, 'D', "linux_banner"}};
    for (std::uint64_t i = 0; i < 600; ++i) {
        symbols.push_back({raw(text) + 0x200 + i / 2, 't', "function_" + std::to_string(i * 7919)});
    }
    std::vector<std::byte> image(tables_at);
    std::ranges::copy(std::as_bytes(std::span{std::string_view{"Linux version 6"}}), image.begin() + 0x100);
    const auto tables = write_kallsyms(shape, symbols, raw(text), text + tables_at);
    image.insert(image.end(), tables.bytes.begin(), tables.bytes.end());
    return image;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const auto images = [] {
        std::vector<std::vector<std::byte>> all;
        for (const auto& shape : shapes) all.push_back(make_image(shape));
        return all;
    }();
    fuzz::Input input{data, size};
    auto image = images[input.byte() % images.size()];
    const bool broken = !input.rest().empty();
    while (!input.rest().empty()) {
        const auto at = input.number(2) % image.size();
        image[at] = static_cast<std::byte>(input.byte());
    }
    const auto found = os::parse_kallsyms(image, text);
    fuzz::require(found || broken);
    if (!found) return 0;
    fuzz::require(found->symbols.by_address().size() == found->names.count);
    std::uint64_t previous = 0;
    for (const auto& symbol : found->symbols.by_address()) {
        fuzz::require(raw(symbol.address) >= previous);
        previous = raw(symbol.address);
    }
    return 0;
}
