#include "tests/support/module_builder.h"

#include <doctest/doctest.h>

#include "os-awareness/linux/module_code.h"
#include "tests/support/btf_writer.h"

using namespace exo;
using namespace exo::os;
using namespace exo::test;

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
    const auto filled = guest.fill_tun();

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
        memory.put(filled.tables,
                   FakeKallsyms{raw(filled.entries), 0xffff'ffff, 0, raw(filled.names), raw(filled.letters)});
        parts = list.parts_of(modules[0]);
        REQUIRE(parts);
        CHECK(parts->symbols.by_address().empty());
        CHECK(parts->problems.size() == 1);
    }
    SUBCASE("names far away") {
        memory.put(filled.entries + sizeof(elf::SymbolEntry), elf::SymbolEntry{.name = 0xffff'ffff});
        parts = list.parts_of(modules[0]);
        REQUIRE(parts);
        CHECK(parts->problems.size() == 1);
    }
    SUBCASE("BTF of a size that cannot be") {
        memory.put(filled.btf, FakeBtf{0, raw(filled.blob), 0xffff'ffff, 0});
        parts = list.parts_of(modules[0]);
        REQUIRE(parts);
        CHECK(parts->btf.empty());
        CHECK(parts->problems.size() == 1);
    }
}

TEST_CASE("code of modules by address and by name, as of the last stop") {
    ModuleGuest guest;
    guest.fill_tun();
    ModuleList list{guest.image, &guest.btf};
    ModuleCode code{guest.image, list};
    const VirtualAddress open{tun_text + 0x10};
    const auto* found = code.at(open + 4);
    REQUIRE(found != nullptr);
    CHECK(found->module.name == "tun");
    CHECK(found->symbols.locate(open + 4)->name == "tun_chr_open");
    CHECK(found->symbols.locate(open + 4)->offset == 4);
    CHECK(code.at(VirtualAddress{tun_text + 0x2000}) == nullptr);
    CHECK(code.at(VirtualAddress{tun_text - 1}) == nullptr);
    CHECK(code.find("tun_chr_open") == open);
    CHECK_FALSE(code.find("tun_count"));  // outside of the memory that the module has
    CHECK_FALSE(code.find("schedule"));
    CHECK(code.rule_at(open) == nullptr);  // this kernel has no ORC

    // Another module takes its place: seen once the guest has run.
    guest.edit(guest.tun, [](FakeModule& m) { m.name[0] = 'f'; });
    CHECK(code.at(open) == found);
    code.guest_ran();
    REQUIRE(code.at(open) != nullptr);
    CHECK(code.at(open)->module.name == "fun");
    // It goes before its code was looked at.
    code.guest_ran();
    guest.edit(guest.tun, [](FakeModule& m) { m.state = 2; });
    CHECK(code.at(open) == nullptr);
    CHECK_FALSE(code.find("tun_chr_open"));
}
