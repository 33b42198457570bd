// The symbol file of a hostile guest: whatever its BTF and symbols say, the DWARF must be consistent. A
// debugger that follows a reference into nowhere may crash.
#include <vector>

#include "fuzz.h"
#include "os-awareness/symbol_file.h"
#include "tests/support/dwarf_reader.h"
#include "tests/support/elf_reader.h"

namespace {

using exo::VirtualAddress;

constexpr std::uint64_t image_of_fuzz = 0xffff'ffff'8100'0000;

exo::os::Btf* parse_input(std::string_view rest, std::uint8_t strings, std::optional<exo::os::Btf>& kept) {
    std::vector<std::byte> blob;
    const auto types = static_cast<std::uint32_t>(rest.size()) / 256 * strings / 4 * 4;
    for (const std::uint32_t word :
         {0x0001eb9fU, 24U, 0U, types, types, static_cast<std::uint32_t>(rest.size()) - types}) {
        for (int i = 0; i < 4; ++i) blob.push_back(static_cast<std::byte>(word >> (8 * i)));
    }
    for (const char c : rest) blob.push_back(static_cast<std::byte>(c));
    auto btf = exo::os::Btf::parse(std::move(blob));
    if (!btf) return nullptr;
    kept = std::move(*btf);
    return &*kept;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    exo::fuzz::Input input{data, size};
    const auto slide = input.number(2) << 21;
    const auto strings = input.byte();
    std::optional<exo::os::Btf> kept;
    exo::os::SymbolFileInput wanted;
    wanted.btf = parse_input(input.rest(), strings, kept);
    if (wanted.btf == nullptr) return 0;

    // A symbol for each name that BTF has, so that functions and variables have a place.
    exo::os::SymbolTable symbols;
    for (exo::os::BtfId id = 1; id <= wanted.btf->last_id(); ++id) {
        const auto at = image_of_fuzz + slide + (id % 5 != 0 ? id * 16 : id);
        symbols.add(VirtualAddress{id % 7 != 0 ? at : id}, "TtDdAw?"[id % 7],
                    wanted.btf->name(*wanted.btf->type(id)));
    }
    symbols.add(VirtualAddress{image_of_fuzz + slide + 0x3000}, 'T', "_etext");
    symbols.finish();
    wanted.image = {&symbols, slide,
                    exo::os::kernel_sections(symbols, slide, image_of_fuzz, image_of_fuzz + 0x6000)};
    wanted.read_code = [&](VirtualAddress at, exo::MutableBytes out) {
        for (auto& byte : out) byte = static_cast<std::byte>(raw(at) ^ size);
        return out.size();
    };

    exo::os::VectorSink sink;
    exo::fuzz::require(exo::os::write_symbol_file(wanted, sink).has_value());
    const exo::test::ElfReader elf{sink.content};
    exo::fuzz::require(elf.symbols().size() == symbols.by_address().size());
    const exo::test::DwarfReader dwarf{elf.content(".debug_abbrev"), elf.content(".debug_info"),
                                       elf.content(".debug_str")};
    exo::fuzz::require(dwarf.problem().empty());
    (void)exo::os::find_build_id(exo::ConstBytes{sink.content});
    return 0;
}
