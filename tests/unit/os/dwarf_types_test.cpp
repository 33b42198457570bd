#include <doctest/doctest.h>

#include <algorithm>

#include "os-awareness/dwarf/abbreviations.h"
#include "os-awareness/dwarf/type_writer.h"
#include "tests/support/btf_writer.h"
#include "tests/support/dwarf_reader.h"

namespace {

using exo::os::Btf;
using exo::os::BtfId;
using exo::os::BtfKind;
using exo::os::dwarf::Attribute;
using exo::os::dwarf::Tag;
using exo::os::dwarf::TypeWriter;
using exo::test::BtfWriter;
using exo::test::DwarfEntry;
using exo::test::DwarfReader;

// What is read back of all types of a BTF.
struct WrittenTypes {
    explicit WrittenTypes(Btf from) : btf(std::move(from)), types(btf, "test", "a compiler") {
        types.write_types();
        REQUIRE(types.finish());
        strings = types.strings();
        const auto abbreviations = exo::os::dwarf::abbreviations();
        reader.emplace(abbreviations.bytes(), types.info().bytes(), strings);
        REQUIRE(reader->problem() == "");
    }
    explicit WrittenTypes(const BtfWriter& writer) : WrittenTypes(std::move(*Btf::parse(writer.blob()))) {}

    const DwarfEntry& get(Tag tag, std::string_view name) const {
        const auto* found = reader->find(tag, name);
        REQUIRE_MESSAGE(found != nullptr, std::string{name});
        return *found;
    }
    std::string type_of_member(std::string_view structure, std::string_view member) const {
        for (const auto* entry : reader->children(get(Tag::structure_type, structure))) {
            if (entry->name == member) return reader->spell(reader->type_of(*entry));
        }
        return "no such member";
    }

    Btf btf;
    TypeWriter types;
    std::vector<std::byte> strings;
    std::optional<DwarfReader> reader;
};

TEST_CASE("numbers: size and encoding; characters by their name") {
    BtfWriter w;
    w.integer("char", 1, true);
    w.integer("unsigned char", 1);
    w.integer("int", 4, true);
    w.integer("long unsigned int", 8);
    w.raw("_Bool", 1U << 24, 1, {4U << 24 | 8});
    w.raw("double", 16U << 24, 8);
    const WrittenTypes written{w};
    const auto encoding = [&](std::string_view name) {
        return written.get(Tag::base_type, name).number(Attribute::encoding);
    };
    CHECK(encoding("char") == 6);
    CHECK(encoding("unsigned char") == 8);
    CHECK(encoding("int") == 5);
    CHECK(encoding("long unsigned int") == 7);
    CHECK(encoding("_Bool") == 2);
    CHECK(encoding("double") == 4);
    CHECK(written.get(Tag::base_type, "long unsigned int").number(Attribute::byte_size) == 8);
    CHECK(written.reader->units() == 1);
    CHECK(written.get(Tag::compile_unit, "test").producer == "a compiler");
}

TEST_CASE("a structure behind a pointer is declared, one by value is referred to in its own unit") {
    BtfWriter w;
    const auto node = w.next_id();  // struct node { struct node *next; }
    w.structure("node", 8, {{"next", node + 1, 0}});
    w.pointer(node);
    const auto constant = w.reference(BtfKind::const_, "", node);
    const auto to_constant = w.pointer(constant);
    const auto alias = w.reference(BtfKind::typedef_, "node_t", node);
    w.structure("holder", 32, {{"value", node, 0}, {"pointer", to_constant, 8}, {"alias", alias, 16}});
    const WrittenTypes written{w};
    CHECK(written.type_of_member("node", "next") == "declared struct node *");
    CHECK(written.type_of_member("holder", "pointer") == "const declared struct node *");
    CHECK(written.type_of_member("holder", "value") == "struct node");
    CHECK(written.type_of_member("holder", "alias") == "node_t");
    CHECK(written.reader->spell(written.reader->type_of(written.get(Tag::typedef_, "node_t"))) ==
          "struct node");
    CHECK(written.get(Tag::structure_type, "holder").unit != written.get(Tag::structure_type, "node").unit);
    CHECK(written.get(Tag::structure_type, "holder").number(Attribute::byte_size) == 32);
}

TEST_CASE("of several structures of one name a pointer says which") {
    BtfWriter w;
    const auto u32 = w.integer("unsigned int", 4);
    w.structure("twin", 4, {{"first", u32, 0}});
    const auto second = w.structure("twin", 8, {{"second", u32, 0}});
    const auto pointer = w.pointer(second);
    w.structure("user", 8, {{"twin", pointer, 0}});
    const WrittenTypes written{w};
    CHECK(written.type_of_member("user", "twin") == "struct twin *");
    const auto* member = written.reader->children(written.get(Tag::structure_type, "user")).at(0);
    const auto* twin = written.reader->type_of(*written.reader->type_of(*member));
    CHECK(twin->number(Attribute::byte_size) == 8);
}

TEST_CASE("what has no name is copied into each unit that uses it") {
    BtfWriter w;
    const auto u64 = w.integer("unsigned long", 8);
    const auto inner = w.union_("", 16, {{"word", u64, 0}, {"other", u64, 8}});
    const auto matrix = w.array(w.array(u64, 3), 2);
    const auto open = w.array(u64, 0);
    w.structure("one", 64, {{"", inner, 0}, {"matrix", matrix, 16}, {"open", open, 64}});
    w.structure("two", 16, {{"", inner, 0}});
    const WrittenTypes written{w};
    CHECK(written.type_of_member("one", "") == "union ");
    CHECK(written.type_of_member("one", "matrix") == "unsigned long [3] [2]");
    CHECK(written.type_of_member("one", "open") == "unsigned long []");
    const auto copies = std::ranges::count(written.reader->entries(), Tag::union_type, &DwarfEntry::tag);
    CHECK(copies == 2);
}

TEST_CASE("members: bytes from the beginning, bitfields in bits") {
    BtfWriter w;
    const auto u32 = w.integer("unsigned int", 4);
    w.bitfields("flags", 8, {{"low", u32, 0, 0, 3}, {"high", u32, 0, 3, 29}, {"whole", u32, 4, 0, 0}});
    const auto narrow = w.raw("unsigned int", 1U << 24, 4, {2U << 16 | 5});  // 5 bits from bit 2 on
    w.structure("old", 4, {{"bits", narrow, 0, 8}});
    const WrittenTypes written{w};
    const auto flags = written.reader->children(written.get(Tag::structure_type, "flags"));
    CHECK(flags.at(0)->number(Attribute::bit_size) == 3);
    CHECK(flags.at(1)->number(Attribute::data_bit_offset) == 3);
    CHECK(flags.at(1)->number(Attribute::bit_size) == 29);
    CHECK_FALSE(flags.at(2)->has(Attribute::bit_size));
    CHECK(flags.at(2)->number(Attribute::data_member_location) == 4);
    const auto* old = written.reader->children(written.get(Tag::structure_type, "old")).at(0);
    CHECK(old->number(Attribute::bit_size) == 5);
    CHECK(old->number(Attribute::data_bit_offset) == 10);
}

std::vector<std::int64_t> values_of(const WrittenTypes& written, std::string_view name) {
    std::vector<std::int64_t> values;
    for (const auto* entry : written.reader->children(written.get(Tag::enumeration_type, name))) {
        values.push_back(static_cast<std::int64_t>(entry->number(Attribute::const_value)));
    }
    return values;
}

TEST_CASE("enumerations: signed where BTF says so, 64 bits wide") {
    BtfWriter w;
    w.enum32("with_minus", true, {{"A", -1}, {"B", 100}});
    w.enum32("all_bits", false, {{"C", 0xffff'ffff}});
    w.enum64("wide", false, {{"D", std::int64_t{1} << 40}});
    const WrittenTypes written{w};
    CHECK(values_of(written, "with_minus") == std::vector<std::int64_t>{-1, 100});
    CHECK(values_of(written, "all_bits") == std::vector<std::int64_t>{0xffff'ffff});
    CHECK(values_of(written, "wide") == std::vector<std::int64_t>{std::int64_t{1} << 40});
    CHECK(written.get(Tag::enumeration_type, "wide").number(Attribute::byte_size) == 8);
}

TEST_CASE("enumerations of a BTF that does not know signs: small negative numbers are negative") {
    BtfWriter w;
    w.enum32("errors", false, {{"E", -22}, {"F", 3}});
    w.enum32("flags", false, {{"G", 0x8000'0000}});
    const WrittenTypes written{w};
    CHECK(values_of(written, "errors") == std::vector<std::int64_t>{-22, 3});
    CHECK(values_of(written, "flags") == std::vector<std::int64_t>{0x8000'0000});
}

TEST_CASE("prototypes, forward declarations, qualifiers of void") {
    BtfWriter w;
    const auto character = w.integer("char", 1, true);
    const auto text = w.pointer(character);
    const auto print = w.raw("", 13U << 24 | 2, character, {0, text, 0, 0});
    const auto to_print = w.pointer(print);
    const auto forward = w.raw("unknown", 7U << 24, 0);
    const auto to_forward = w.pointer(forward);
    const auto to_void = w.pointer(w.reference(BtfKind::const_, "", 0));
    w.structure("ops", 24, {{"print", to_print, 0}, {"unknown", to_forward, 8}, {"data", to_void, 16}});
    const WrittenTypes written{w};
    CHECK(written.type_of_member("ops", "print") == "char (char *, ...) *");
    CHECK(written.type_of_member("ops", "unknown") == "declared struct unknown *");
    CHECK(written.type_of_member("ops", "data") == "const void *");
}

TEST_CASE("references in a circle and to what is no type are void, members of void are left out") {
    BtfWriter w;
    const auto u32 = w.integer("unsigned int", 4);
    const auto loop = w.next_id();
    w.reference(BtfKind::typedef_, "loop", loop + 1);
    w.reference(BtfKind::const_, "", loop);
    const auto to_loop = w.pointer(loop);
    const auto voids = w.array(0, 5);
    const auto self = w.next_id();
    w.pointer(self);
    w.structure("wrong", 8,
                {{"loop", loop, 0},
                 {"to_loop", to_loop, 0},
                 {"voids", voids, 0},
                 {"self", self, 0},
                 {"beyond", 77, 0},
                 {"right", u32, 4}});
    const WrittenTypes written{w};
    const auto members = written.reader->children(written.get(Tag::structure_type, "wrong"));
    REQUIRE(members.size() == 1);
    CHECK(members[0]->name == "right");
    CHECK(written.reader->type_of(written.get(Tag::typedef_, "loop")) == nullptr);
}

TEST_CASE("types of a module: its own, and of the kernel's those that it holds by value") {
    BtfWriter kernel;
    const auto u32 = kernel.integer("unsigned int", 4);
    const auto lock = kernel.structure("lock", 4, {{"value", u32, 0}});
    const auto pointed = kernel.structure("pointed", 4, {{"value", u32, 0}});
    kernel.structure("unused", 4, {{"value", u32, 0}});
    const auto base = Btf::parse(kernel.blob());
    REQUIRE(base);

    BtfWriter module{kernel.next_id(), kernel.string_bytes()};
    const auto pointer = module.pointer(pointed);
    module.structure("driver", 16, {{"lock", lock, 0}, {"pointed", pointer, 8}});
    auto split = Btf::parse_split(module.blob(), *base);
    REQUIRE(split);
    const WrittenTypes written{std::move(*split)};
    CHECK(written.type_of_member("driver", "lock") == "struct lock");
    CHECK(written.type_of_member("lock", "value") == "unsigned int");
    CHECK(written.type_of_member("driver", "pointed") == "declared struct pointed *");
    CHECK(written.reader->find(Tag::structure_type, "unused") == nullptr);
    const std::string_view strings{reinterpret_cast<const char*>(written.strings.data()),
                                   written.strings.size()};
    CHECK(strings.find("pointed") != std::string_view::npos);
    CHECK(strings.find("unused") == std::string_view::npos);  // a kernel has a megabyte of them
}

TEST_CASE("what a module points to is referred to where the kernel, or it, has several of that name") {
    BtfWriter kernel;
    const auto u32 = kernel.integer("unsigned int", 4);
    const auto twice = kernel.structure("twice", 4, {{"first", u32, 0}});
    kernel.structure("twice", 4, {{"second", u32, 0}});
    const auto mixed = kernel.structure("mixed", 4, {{"in_kernel", u32, 0}});
    const auto base = Btf::parse(kernel.blob());
    REQUIRE(base);
    BtfWriter module{kernel.next_id(), kernel.string_bytes()};
    const auto to_twice = module.pointer(twice);
    const auto to_mixed = module.pointer(mixed);
    module.structure("mixed", 4, {{"in_module", u32, 0}});
    module.structure("driver", 16, {{"twice", to_twice, 0}, {"mixed", to_mixed, 8}});
    const WrittenTypes written{std::move(*Btf::parse_split(module.blob(), *base))};
    CHECK(written.type_of_member("driver", "twice") == "struct twice *");
    CHECK(written.type_of_member("driver", "mixed") == "struct mixed *");
}

TEST_CASE("strings of the guest are printable") {
    BtfWriter w;
    w.integer("in\x1b[31mt", 4);
    const WrittenTypes written{w};
    CHECK(written.reader->find(Tag::base_type, "in?[31mt") != nullptr);
}

}  // namespace
