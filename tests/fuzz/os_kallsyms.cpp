// kallsyms in any bytes: never out of bounds; what is taken is a table in order.
#include "os-awareness/linux/kallsyms.h"

#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const exo::ConstBytes image = std::as_bytes(std::span{data, size});
    const auto found = exo::os::parse_kallsyms(image, exo::VirtualAddress{0xffff'ffff'8100'0000});
    if (!found) return 0;
    const auto symbols = found->symbols.by_address();
    exo::fuzz::require(symbols.size() == found->names.count);
    exo::fuzz::require(found->names.begin < found->names.end && found->names.end <= found->names.markers);
    for (const auto& symbol : symbols) {
        const auto name = found->symbols.name(symbol);
        exo::fuzz::require(found->symbols.find(name).has_value());
        exo::fuzz::require(found->symbols.locate(symbol.address)->offset == 0);
    }
    return 0;
}
