#include "os-awareness/linux/btf.h"

#include <doctest/doctest.h>

#include <cstring>

#include "tests/support/btf_writer.h"

namespace {

using exo::os::Btf;
using exo::os::BtfKind;
using exo::test::BtfWriter;

Btf parse(const BtfWriter& writer) {
    auto btf = Btf::parse(writer.blob());
    REQUIRE_MESSAGE(btf, (btf ? "" : btf.error().message));
    return std::move(*btf);
}

void put32(std::vector<std::byte>& blob, std::size_t at, std::uint32_t value) {
    std::memcpy(&blob.at(at), &value, sizeof value);
}

TEST_CASE("records keep their ids, kinds and names") {
    BtfWriter w;
    const auto u32 = w.integer("unsigned int", 4);
    const auto s8 = w.integer("char", 1, true);
    const auto ptr = w.pointer(s8);
    const auto arr = w.array(u32, 7);
    const auto td = w.reference(BtfKind::typedef_, "size_t", u32);
    const auto btf = parse(w);
    CHECK(btf.incomplete().empty());
    CHECK(btf.last_id() == 5);
    CHECK(btf.name(*btf.type(u32)) == "unsigned int");
    CHECK(btf.type(ptr)->kind == BtfKind::pointer);
    CHECK(btf.type(ptr)->size_or_type == s8);
    CHECK(btf.array(*btf.type(arr)).count == 7);
    CHECK(btf.array(*btf.type(arr)).element == u32);
    CHECK(btf.integer(*btf.type(s8)).is_signed);
    CHECK(btf.integer(*btf.type(u32)).bits == 32);
    CHECK(btf.resolve(td)->id == u32);
    CHECK_FALSE(btf.type(0));
    CHECK_FALSE(btf.type(6));
}

TEST_CASE("members are found by path, through anonymous members and typedefs") {
    BtfWriter w;
    const auto u64 = w.integer("unsigned long", 8);
    const auto inner = w.structure("thread_struct", 24, {{"pad", u64, 0}, {"sp", u64, 16}});
    const auto alias = w.reference(BtfKind::typedef_, "thread_t", inner);
    const auto anonymous = w.union_("", 16, {{"other", u64, 0}, {"second", u64, 8}});
    const auto qualified = w.reference(BtfKind::const_, "", anonymous);
    w.structure("task", 64, {{"first", u64, 0}, {"", qualified, 8}, {"thread", alias, 32}});
    w.reference(BtfKind::typedef_, "task_t", w.next_id() - 1);
    const auto btf = parse(w);

    const auto sp = btf.field("task", "thread.sp");
    REQUIRE(sp);
    CHECK(sp->offset() == 48);
    CHECK(sp->size == 8);
    CHECK(btf.field("task", "second")->offset() == 16);
    CHECK(btf.field("task", "thread")->size == 24);
    CHECK(btf.field("task_t", "first")->offset() == 0);
    CHECK(btf.field("task", "nothing").error().code == exo::Errc::not_found);
    CHECK(btf.field("task", "first.nothing").error().code == exo::Errc::not_found);
    CHECK(btf.field("task", "thread..sp").error().code == exo::Errc::not_found);
    CHECK(btf.field("no_such", "first").error().code == exo::Errc::not_found);
}

TEST_CASE("bitfields have offset and width in bits") {
    BtfWriter w;
    const auto u32 = w.integer("unsigned int", 4);
    w.bitfields("flags", 8, {{"whole", u32, 0}, {"three", u32, 4, 2, 3}});
    const auto btf = parse(w);
    CHECK(btf.field("flags", "whole")->bits == 0);
    CHECK(btf.field("flags", "three")->bits == 3);
    CHECK(btf.field("flags", "three")->bit_offset == 34);
}

TEST_CASE("sizes") {
    BtfWriter w;
    const auto u16 = w.integer("short", 2);
    const auto row = w.array(u16, 3);
    const auto table = w.array(row, 5);
    const auto ptr = w.pointer(0);
    const auto fwd = w.reference(BtfKind::forward, "opaque", 0);
    const auto huge = w.array(w.array(w.array(u16, 0xffffffff), 0xffffffff), 0xffffffff);
    const auto empty = w.array(u16, 0);
    const auto btf = parse(w);
    CHECK(btf.size_of(table) == 30);
    CHECK(btf.size_of(ptr) == 8);
    CHECK(btf.size_of(empty) == 0);
    CHECK_FALSE(btf.size_of(0));
    CHECK_FALSE(btf.size_of(fwd));
    CHECK_FALSE(btf.size_of(huge));
}

TEST_CASE("enumerators, signed, unsigned and of 64 bits") {
    BtfWriter w;
    w.enum32("states", false, {{"RUNNING", 0}, {"TOP", 0xffffffff}});
    w.enum32("errors", true, {{"NONE", 0}, {"LAST", -4095}});
    w.enum64("wide", false, {{"BIG", 0x123456789abcdef0}});
    const auto btf = parse(w);
    CHECK(btf.enumerator("states", "TOP") == 0xffffffff);
    CHECK(btf.enumerator("errors", "LAST") == -4095);
    CHECK(btf.enumerator("wide", "BIG") == 0x123456789abcdef0);
    CHECK_FALSE(btf.enumerator("states", "LAST"));
    CHECK_FALSE(btf.enumerator("none", "LAST"));
}

TEST_CASE("per-CPU variables") {
    BtfWriter w;
    const auto u64 = w.integer("unsigned long", 8);
    const auto a = w.variable("runqueues", u64);
    const auto b = w.variable("current_task", u64);
    w.data_section(".data..percpu", {{a, 0x100, 8}, {999, 0, 8}, {u64, 0, 8}, {b, 0x200, 8}});
    const auto btf = parse(w);
    CHECK(btf.per_cpu_variable("current_task")->offset == 0x200);
    CHECK_FALSE(btf.per_cpu_variable("unsigned long"));
}

TEST_CASE("find tells kinds apart and takes the first of a name") {
    BtfWriter w;
    const auto u64 = w.integer("page", 8);
    const auto first = w.structure("page", 8, {{"a", u64, 0}});
    w.structure("page", 16, {{"b", u64, 8}});
    const auto btf = parse(w);
    CHECK(btf.find("page", BtfKind::integer)->id == u64);
    CHECK(btf.find("page", BtfKind::structure)->id == first);
    CHECK_FALSE(btf.find("page", BtfKind::union_));
    CHECK_FALSE(btf.find("", BtfKind::structure));
}

TEST_CASE("an unknown kind makes the later ids unusable, not the earlier ones") {
    BtfWriter w;
    const auto u64 = w.integer("unsigned long", 8);
    w.raw("future", 31U << 24, 0);
    w.structure("later", 8, {{"a", u64, 0}});
    const auto btf = parse(w);
    CHECK(btf.last_id() == 1);
    CHECK(btf.incomplete() == "BTF type 2: unknown kind 31");
    CHECK(btf.find("unsigned long", BtfKind::integer));
    CHECK_FALSE(btf.find("later", BtfKind::structure));
}

TEST_CASE("a record that is cut off ends the types") {
    BtfWriter w;
    w.integer("unsigned long", 8);
    w.raw("cut", (4U << 24) | 1000, 8);  // a struct with 1000 members, none of which is there
    const auto btf = parse(w);
    CHECK(btf.last_id() == 1);
    CHECK(btf.incomplete() == "BTF type 2: its records are cut off");
}

TEST_CASE("chains and nests without end end") {
    BtfWriter w;
    const auto self = w.next_id();
    w.reference(BtfKind::typedef_, "self", self);
    const auto loop = w.next_id();
    w.array(loop, 1);
    const auto nest = w.next_id();
    w.structure("nest", 8, {{"", nest, 0}, {"", nest, 0}, {"deep", self, 0}});
    const auto btf = parse(w);
    CHECK_FALSE(btf.resolve(self));
    CHECK_FALSE(btf.size_of(self));
    CHECK_FALSE(btf.size_of(loop));
    CHECK(btf.field("nest", "deep")->size == 0);
    CHECK_FALSE(btf.field("nest", "absent"));
}

TEST_CASE("headers are checked") {
    BtfWriter w;
    w.integer("int", 4);
    const auto good = w.blob();
    CHECK(Btf::blob_size(good) == good.size());

    auto bad = good;
    bad[0] = std::byte{0};
    CHECK(Btf::parse(bad).error().message == "no BTF magic");
    bad = good;
    bad[2] = std::byte{2};
    CHECK(Btf::parse(bad).error().message == "unknown BTF version 2");
    bad = good;
    put32(bad, 12, 0xfffffff0);  // type_len
    CHECK(Btf::parse(bad).error().code == exo::Errc::bad_data);
    CHECK_FALSE(Btf::blob_size(bad));
    bad = good;
    put32(bad, 20, 1000);  // str_len
    CHECK(Btf::parse(bad).error().message.starts_with("BTF is cut off"));
    bad = good;
    put32(bad, 4, 20);  // hdr_len
    CHECK_FALSE(Btf::parse(bad));
    bad.resize(10);
    CHECK_FALSE(Btf::parse(bad));
    CHECK_FALSE(Btf::parse({}));
}

TEST_CASE("names out of bounds are empty and strings end with their section") {
    BtfWriter w;
    w.integer("int", 4);
    auto blob = w.blob();
    blob.back() = std::byte{'!'};  // no NUL any more
    put32(blob, 20, 5);
    auto btf = Btf::parse(blob);
    REQUIRE(btf);
    CHECK(btf->name(*btf->type(1)) == "int!");
    put32(blob, 24, 0x7fffffff);  // name_off of the first type
    btf = Btf::parse(blob);
    REQUIRE(btf);
    CHECK(btf->name(*btf->type(1)).empty());
}

TEST_CASE("split BTF goes on where its base ends") {
    BtfWriter kernel;
    const auto u32 = kernel.integer("unsigned int", 4);
    const auto lock = kernel.structure("lock", 4, {{"value", u32, 0}});
    const auto base = parse(kernel);
    BtfWriter module{kernel.next_id(), kernel.string_bytes()};
    const auto driver = module.structure("driver", 8, {{"lock", lock, 4}});
    const auto split = Btf::parse_split(module.blob(), base);
    REQUIRE(split);
    CHECK(split->first_own_id() == 3);
    CHECK(split->last_id() == 3);
    CHECK(driver == 3);
    CHECK(split->name(*split->type(driver)) == "driver");
    CHECK(split->name(*split->type(lock)) == "lock");
    CHECK_FALSE(split->type(4));
    CHECK_FALSE(split->type(0));
    CHECK(split->field("driver", "lock.value")->offset() == 4);
    CHECK(split->find("lock", BtfKind::structure)->id == lock);
    const auto strings = split->string_sections();
    CHECK(strings[0].size() == kernel.string_bytes());
    CHECK(strings[0].size() + strings[1].size() == module.string_bytes());
    CHECK_FALSE(Btf::parse_split(module.blob(), *split));
}

}  // namespace
