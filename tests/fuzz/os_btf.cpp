// BTF out of a guest: whatever parses must answer every question about every id, right or wrong.
#include <vector>

#include "fuzz.h"
#include "os-awareness/linux/btf.h"
#include "os-awareness/linux/struct_layout.h"

namespace {

using exo::os::Btf;

void ask_about(const Btf& btf, const exo::os::BtfType& type) {
    const auto tail = std::min<std::uint32_t>(type.count, 300);
    for (std::uint32_t i = 0; i < tail; ++i) {
        const auto member = btf.member(type, i);
        if (type.composite()) (void)btf.field(type, btf.string(member.name));
        (void)btf.enumerator(type, i);
        (void)btf.parameter(type, i);
        (void)btf.section_variable(type, i);
    }
    (void)btf.array(type);
    (void)btf.integer(type);
    (void)btf.size_of(type.id);
    const auto resolved = btf.resolve(type.id);
    exo::fuzz::require(!resolved || !resolved->transparent());
    const auto name = btf.name(type);
    if (name.empty()) return;
    const auto found = btf.find(name, type.kind);
    exo::fuzz::require(found && found->id <= type.id);
}

}  // namespace

// The first byte chooses: the input as it stands, or its rest behind a header that is right.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    exo::fuzz::Input input{data, size};
    const bool with_header = (input.byte() & 1) != 0;
    const auto strings = input.byte();
    std::vector<std::byte> blob;
    const auto append = [&](std::uint32_t word) {
        for (int i = 0; i < 4; ++i) blob.push_back(static_cast<std::byte>(word >> (8 * i)));
    };
    const auto rest = input.rest();
    if (with_header) {
        const auto types = static_cast<std::uint32_t>(rest.size()) / 256 * strings / 4 * 4;
        for (const std::uint32_t word :
             {0x0001eb9fU, 24U, 0U, types, types, static_cast<std::uint32_t>(rest.size()) - types}) {
            append(word);
        }
    }
    for (const char c : rest) blob.push_back(static_cast<std::byte>(c));

    const auto btf = Btf::parse(blob);
    if (!btf) return 0;
    // A module's, with the same blob as the kernel's.
    const auto split = Btf::parse_split(std::move(blob), *btf);
    exo::fuzz::require(split && split->last_id() == btf->last_id() * 2);
    const auto last_own = std::min<std::uint32_t>(split->last_id(), btf->last_id() + 50);
    for (exo::os::BtfId id = split->first_own_id(); id <= last_own; ++id) ask_about(*split, *split->type(id));
    const auto last = std::min<std::uint32_t>(btf->last_id(), 300);
    for (exo::os::BtfId id = 1; id <= last; ++id) ask_about(*btf, *btf->type(id));
    exo::fuzz::require(!btf->type(0) && !btf->type(btf->last_id() + 1));
    (void)exo::os::layout_from_btf(*btf);
    (void)btf->per_cpu_variable("runqueues");
    return 0;
}
