#include "tests/support/module_builder.h"

#include <cstddef>

#include "tests/support/btf_writer.h"

namespace exo::test {

#define AT(type, member) static_cast<std::uint32_t>(offsetof(type, member))

std::vector<std::byte> module_types(bool ranges) {
    BtfWriter btf;
    const auto u8 = btf.integer("char", 1);
    const auto u32 = btf.integer("unsigned int", 4);
    const auto u64 = btf.integer("unsigned long", 8);
    const auto links = btf.structure("list_head", 16, {{"next", u64, 0}, {"prev", u64, 8}});
    const auto name = btf.array(u8, 56);
    const auto counter = btf.structure("atomic_t", 4, {{"counter", u32, 0}});
    std::vector<BtfWriter::Member> members{{"state", u32, AT(FakeModule, state)},
                                           {"list", links, AT(FakeModule, list)},
                                           {"name", name, AT(FakeModule, name)},
                                           {"kallsyms", u64, AT(FakeModule, kallsyms)},
                                           {"refcnt", counter, AT(FakeModule, refcount)}};
    const auto arch = btf.structure(
        "mod_arch_specific", 24, {{"num_orcs", u32, 0}, {"orc_unwind_ip", u64, 8}, {"orc_unwind", u64, 16}});
    members.push_back({"arch", arch, AT(FakeModule, num_orcs)});
    if (ranges) {
        btf.enum32("mod_mem_type", false, {{"MOD_TEXT", 0}, {"MOD_INIT_TEXT", 1}, {"MOD_DATA", 2}});
        const auto range = btf.structure("module_memory", sizeof(ModuleRange),
                                         {{"base", u64, 0}, {"size", u32, AT(ModuleRange, size)}});
        members.push_back({"mem", btf.array(range, 3), AT(FakeModule, mem)});
    } else {
        const auto block = btf.structure("module_layout", sizeof(ModuleBlock),
                                         {{"base", u64, 0},
                                          {"size", u32, AT(ModuleBlock, size)},
                                          {"text_size", u32, AT(ModuleBlock, text_size)},
                                          {"ro_size", u32, AT(ModuleBlock, ro_size)}});
        members.push_back({"core_layout", block, AT(FakeModule, core)});
        members.push_back({"init_layout", block, AT(FakeModule, init)});
    }
    btf.structure("module", sizeof(FakeModule), members);
    btf.structure("mod_kallsyms", sizeof(FakeKallsyms),
                  {{"symtab", u64, 0},
                   {"num_symtab", u32, AT(FakeKallsyms, num_symtab)},
                   {"strtab", u64, AT(FakeKallsyms, strtab)},
                   {"typetab", u64, AT(FakeKallsyms, typetab)}});
    btf.structure("btf_module", sizeof(FakeBtfModule),
                  {{"list", links, 0},
                   {"btf", u64, AT(FakeBtfModule, btf)},
                   {"module", u64, AT(FakeBtfModule, module)}});
    btf.structure("btf", sizeof(FakeBtf),
                  {{"data", u64, AT(FakeBtf, data)}, {"data_size", u32, AT(FakeBtf, data_size)}});
    return btf.blob();
}

}  // namespace exo::test
