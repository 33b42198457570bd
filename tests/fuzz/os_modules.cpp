// A guest with modules in which some bytes were changed: the ring, struct module, its symbols, ORC rows and
// split BTF. However it is torn up, what is listed makes sense, and a file comes out of it or an error.
#include <algorithm>
#include <vector>

#include "fuzz.h"
#include "os-awareness/linux/module_code.h"
#include "os-awareness/linux/module_symbols.h"
#include "tear_up.h"
#include "tests/support/module_builder.h"

namespace {

using namespace exo;
using namespace exo::test;

constexpr std::size_t orc_rows = 7;

struct Modules : ModuleGuest {
    std::vector<std::uint64_t> places;  // what is changed, and what pointers are changed to

    Modules() {
        const auto loop = add("loop", 0xffff'ffff'c030'0000);
        const auto at = fill_tun();
        const auto ips = guest.in_heap(orc_rows * sizeof(std::int32_t));
        const auto entries = guest.in_heap(orc_rows * os::OrcTable::entry_bytes);
        for (std::size_t i = 0; i < orc_rows; ++i) {
            const auto here = ips + i * sizeof(std::int32_t);
            guest.put(here, static_cast<std::int32_t>(tun_text + i * 0x10 - raw(here)));
            guest.put(entries + i * os::OrcTable::entry_bytes, std::uint16_t{8});  // sp + 8
            guest.put(entries + i * os::OrcTable::entry_bytes + 4, std::uint16_t{0x0205});
        }
        edit(tun, [&](FakeModule& m) {
            m.orc_ips = raw(ips);
            m.orc_entries = raw(entries);
            m.num_orcs = orc_rows;
        });
        for (const auto place : {tun, loop, head, btf_head, at.entries, at.names, at.tables, at.letters,
                                 at.btf, at.blob, ips, entries}) {
            places.push_back(raw(place));
        }
    }
};

void look_at(Modules& guest, const os::Module& module, os::ModuleList& list, os::ModuleCode& code) {
    const auto bad = [](char c) { return c == '/' || c == '<' || c == '&' || c == '\0'; };
    fuzz::require(!module.name.empty() && std::ranges::none_of(module.name, bad));
    std::uint64_t end = 0;
    for (const auto& range : module.memory) {
        fuzz::require(raw(range.start) >= end && range.size > 0);
        end = raw(range.start) + range.size;
        (void)code.at(range.start);
        (void)code.rule_at(range.start + range.size / 2);
    }
    auto parts = list.parts_of(module);
    if (!parts) return;
    os::VectorSink sink;
    (void)os::write_module_symbols(guest.image, &guest.btf, os::OrcLayout::v3, module, *std::move(parts),
                                   sink);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static Modules guest;
    fuzz::Input input{data, size};
    const fuzz::TearUp torn{guest.guest, guest.places, input};
    os::ModuleList list{guest.image, &guest.btf};
    os::ModuleCode code{guest.image, list};
    const auto found = list.read();
    for (const auto& module : found.modules) look_at(guest, module, list, code);
    (void)code.find("tun_chr_open");
    fuzz::require(torn.changed() || (found.modules.size() == 2 && found.problems.empty()));
    return 0;
}
