#include "os-awareness/linux/modules.h"

#include <doctest/doctest.h>

#include <cstring>

#include "os-awareness/elf/format.h"
#include "os-awareness/linux/list_walk.h"
#include "tests/support/btf_writer.h"
#include "tests/support/guest_builder.h"

using namespace exo;
using namespace exo::os;
using namespace exo::test;

namespace {

struct ModuleRange {
    std::uint64_t base;
    std::uint32_t size, pad;
};
struct ModuleBlock {
    std::uint64_t base;
    std::uint32_t size, text_size, ro_size, pad;
};
// Of a size and order that no real one has; it has what kernels before 6.4 have, and what those since have.
struct FakeModule {
    std::uint32_t pad0, state;
    ListLinks list;
    char name[56];
    ModuleBlock core, init;
    ModuleRange mem[3];  // text, init text, data
    std::uint64_t kallsyms;
    std::uint32_t num_orcs, refcount;
    std::uint64_t orc_ips, orc_entries;
};
struct FakeKallsyms {
    std::uint64_t symtab;
    std::uint32_t num_symtab, pad;
    std::uint64_t strtab, typetab;
};
struct FakeBtfModule {
    ListLinks list;
    std::uint64_t btf, module;
};
struct FakeBtf {
    std::uint64_t pad, data;
    std::uint32_t data_size, pad2;
};

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

constexpr std::uint64_t tun_text = 0xffff'ffff'c020'0000;

// A kernel with the module `tun`, and those that a test adds.
struct ModuleGuest {
    explicit ModuleGuest(bool ranges = true) : btf(*Btf::parse(module_types(ranges))) {
        head = guest.in_heap(sizeof(ListLinks));
        btf_head = guest.in_heap(sizeof(ListLinks));
        for (const auto at : {head, btf_head}) guest.put(at, ListLinks{raw(at), raw(at)});
        image.symbols.add(head, 'd', "modules");
        image.symbols.add(btf_head, 'd', "btf_modules");
        image.symbols.finish();
        image.space = std::make_unique<PageTables>(guest.memory(), guest.kernel_root(), guest.options().mode);
        tun = add("tun", tun_text);
    }

    VirtualAddress add(std::string_view name, std::uint64_t text) {
        const auto at = guest.in_heap(sizeof(FakeModule));
        FakeModule module{};
        std::memcpy(static_cast<void*>(module.name), name.data(), name.size());
        module.core = {text, 0x5000, 0x2000, 0x3000, 0};
        module.init = {text + 0x8000, 0x1000, 0x1000, 0x1000, 0};
        module.mem[0] = {text, 0x2000, 0};
        module.mem[1] = {text + 0x8000, 0x1000, 0};
        module.mem[2] = {text - 0x10'0000, 0x3000, 0};
        module.refcount = 3;
        guest.put(at, module);
        link(head, at + offsetof(FakeModule, list));
        return at;
    }
    void link(VirtualAddress ring, VirtualAddress node) {  // list_add
        auto first = get<ListLinks>(ring);
        guest.put(node, ListLinks{first.next, raw(ring)});
        auto after = get<ListLinks>(VirtualAddress{first.next});
        after.prev = raw(node);
        guest.put(VirtualAddress{first.next}, after);
        first = get<ListLinks>(ring);
        first.next = raw(node);
        guest.put(ring, first);
    }
    template <class T>
    T get(VirtualAddress at) {
        T value{};
        std::memcpy(&value, guest.bytes(at, sizeof value).data(), sizeof value);
        return value;
    }
    template <class Change>
    void edit(VirtualAddress at, Change change) {
        auto module = get<FakeModule>(at);
        change(module);
        guest.put(at, module);
    }
    OsAwareness::Modules read() { return ModuleList{image, &btf}.read(); }

    GuestBuilder guest;
    Btf btf;
    KernelImage image;
    VirtualAddress head{}, btf_head{}, tun{};
};

}  // namespace

TEST_CASE("modules in ranges, the last loaded first") {
    ModuleGuest guest;
    guest.add("loop", 0xffff'ffff'c030'0000);
    const auto found = guest.read();
    CHECK(found.problems.empty());
    REQUIRE(found.modules.size() == 2);
    CHECK(found.modules[0].name == "loop");
    const auto& tun = found.modules[1];
    CHECK(tun.name == "tun");
    CHECK(tun.address == guest.tun);
    CHECK(tun.users == 2);
    CHECK_FALSE(tun.initialising);
    CHECK(tun.size == 0x5000);
    REQUIRE(tun.memory.size() == 2);  // init code is freed
    CHECK(tun.memory[0] == Module::Range{".data", VirtualAddress{tun_text - 0x10'0000}, 0x3000, false, true});
    CHECK(tun.memory[1] == Module::Range{".text", VirtualAddress{tun_text}, 0x2000, true, false});
}

TEST_CASE("modules in one block: code, constants, data") {
    ModuleGuest guest{false};
    const auto found = guest.read();
    REQUIRE(found.modules.size() == 1);
    const auto& memory = found.modules[0].memory;
    REQUIRE(memory.size() == 3);
    CHECK(memory[0] == Module::Range{".text", VirtualAddress{tun_text}, 0x2000, true, false});
    CHECK(memory[1] == Module::Range{".rodata", VirtualAddress{tun_text + 0x2000}, 0x1000, false, false});
    CHECK(memory[2] == Module::Range{".data", VirtualAddress{tun_text + 0x3000}, 0x2000, false, true});
}

TEST_CASE("a module in its init function has its init code; one that goes or is half loaded is left out") {
    ModuleGuest guest;
    guest.edit(guest.tun, [](FakeModule& m) { m.state = 1; });
    auto found = guest.read();
    REQUIRE(found.modules.size() == 1);
    CHECK(found.modules[0].initialising);
    CHECK(found.modules[0].memory.size() == 3);
    for (const std::uint32_t state : {2U, 3U}) {
        guest.edit(guest.tun, [&](FakeModule& m) { m.state = state; });
        found = guest.read();
        CHECK(found.modules.empty());
        CHECK(found.problems.empty());
    }
}

TEST_CASE("modules that make no sense are said, and the others are there") {
    ModuleGuest guest;
    const auto bad = guest.add("bad", 0xffff'ffff'c030'0000);
    guest.add("good/../x", 0xffff'ffff'c040'0000);
    SUBCASE("state") {
        guest.edit(bad, [](FakeModule& m) { m.state = 77; });
    }
    SUBCASE("no memory") {
        guest.edit(bad, [](FakeModule& m) { std::memset(static_cast<void*>(m.mem), 0, sizeof m.mem); });
    }
    SUBCASE("user memory") {
        guest.edit(bad, [](FakeModule& m) {
            for (auto& range : m.mem) range.base = 0x40'0000;
        });
    }
    SUBCASE("ranges in each other") {
        guest.edit(bad, [](FakeModule& m) { m.mem[2].base = m.mem[0].base + 8; });
    }
    SUBCASE("no name") {
        guest.edit(bad, [](FakeModule& m) { m.name[0] = 0; });
    }
    const auto found = guest.read();
    CHECK(found.problems.size() == 1);
    REQUIRE(found.modules.size() == 2);
    CHECK(found.modules[0].name == "good?..?x");
    CHECK(found.modules[1].name == "tun");
}

TEST_CASE("a ring of modules that is broken gives what can be reached") {
    ModuleGuest guest;
    const auto loop = guest.add("loop", 0xffff'ffff'c030'0000);
    guest.edit(loop, [](FakeModule& m) { m.list.next = 0x1234'5678; });
    const auto found = guest.read();
    CHECK(found.problems.size() == 1);
    CHECK(found.modules.size() == 2);
}

TEST_CASE("without types or the list no module is found, and it is said why") {
    ModuleGuest guest;
    auto found = ModuleList{guest.image, nullptr}.read();
    CHECK(found.modules.empty());
    REQUIRE(found.problems.size() == 1);
    CHECK(found.problems[0].find("no BTF") != std::string::npos);
    BtfWriter other;
    other.integer("int", 4, true);
    const auto btf = *Btf::parse(other.blob());
    CHECK(ModuleList{guest.image, &btf}.read().problems.size() == 1);
    guest.image.symbols = {};
    guest.image.symbols.finish();
    CHECK(guest.read().problems.at(0).find("no symbol modules") != std::string::npos);
}

TEST_CASE("what a module's file is made of") {
    ModuleGuest guest;
    auto& memory = guest.guest;
    const auto entries = memory.in_heap(3 * sizeof(elf::SymbolEntry));
    memory.put(entries + sizeof(elf::SymbolEntry),
               elf::SymbolEntry{.name = 1, .info = 0x12, .section = 1, .value = tun_text + 0x10, .size = 4});
    memory.put(
        entries + 2 * sizeof(elf::SymbolEntry),
        elf::SymbolEntry{.name = 14, .info = 0x11, .section = 2, .value = tun_text + 0x3000, .size = 8});
    const auto names = memory.in_heap(4096);
    memory.put_text(names + 1, "tun_chr_open");
    memory.put_text(names + 14, "tun_count");
    const auto letters = memory.in_heap(64);
    memory.put_text(letters, "?td");
    const auto tables = memory.in_heap(sizeof(FakeKallsyms));
    memory.put(tables, FakeKallsyms{raw(entries), 3, 0, raw(names), raw(letters)});
    const auto blob = memory.in_heap(16);
    memory.put_text(blob, "split BTF");
    const auto btf = memory.in_heap(sizeof(FakeBtf));
    memory.put(btf, FakeBtf{0, raw(blob), 9, 0});
    const auto entry = memory.in_heap(sizeof(FakeBtfModule));
    memory.put(entry, FakeBtfModule{{}, raw(btf), raw(guest.tun)});
    guest.link(guest.btf_head, entry);
    guest.edit(guest.tun, [&](FakeModule& m) {
        m.kallsyms = raw(tables);
        m.num_orcs = 7;
        m.orc_ips = tun_text + 0x100;
        m.orc_entries = tun_text + 0x200;
    });

    ModuleList list{guest.image, &guest.btf};
    const auto modules = list.read().modules;
    REQUIRE(modules.size() == 1);
    auto parts = list.parts_of(modules[0]);
    REQUIRE(parts);
    CHECK(parts->problems.empty());
    const auto symbols = parts->symbols.by_address();
    REQUIRE(symbols.size() == 2);
    CHECK(parts->symbols.name(symbols[0]) == "tun_chr_open");
    CHECK(symbols[0].address == VirtualAddress{tun_text + 0x10});
    CHECK(symbols[0].type == 't');
    CHECK(symbols[1].type == 'd');
    CHECK(parts->orc.count == 7);
    CHECK(parts->orc.ips == VirtualAddress{tun_text + 0x100});
    CHECK(parts->btf.size() == 9);

    // Another module is at its place by now.
    guest.edit(guest.tun, [](FakeModule& m) { m.name[0] = 'f'; });
    CHECK(list.parts_of(modules[0]).error().code == Errc::not_found);
    guest.edit(guest.tun, [](FakeModule& m) { m.name[0] = 't'; });

    SUBCASE("more symbols than there can be") {
        memory.put(tables, FakeKallsyms{raw(entries), 0xffff'ffff, 0, raw(names), raw(letters)});
        parts = list.parts_of(modules[0]);
        REQUIRE(parts);
        CHECK(parts->symbols.by_address().empty());
        CHECK(parts->problems.size() == 1);
    }
    SUBCASE("names far away") {
        memory.put(entries + sizeof(elf::SymbolEntry), elf::SymbolEntry{.name = 0xffff'ffff});
        parts = list.parts_of(modules[0]);
        REQUIRE(parts);
        CHECK(parts->problems.size() == 1);
    }
    SUBCASE("BTF of a size that cannot be") {
        memory.put(btf, FakeBtf{0, raw(blob), 0xffff'ffff, 0});
        parts = list.parts_of(modules[0]);
        REQUIRE(parts);
        CHECK(parts->btf.empty());
        CHECK(parts->problems.size() == 1);
    }
}
