// How the frames of tables are laid out in the section.
#include <doctest/doctest.h>

#include <string>

#include "tests/unit/os/orc_bench.h"

using namespace exo;
using namespace exo::os;
using namespace exo::test;
using exo::os::cfi::Register;
using Outcome = exo::test::CfiReader::Outcome;

TEST_CASE("orc frames: functions have FDEs of their own, names without code have none") {
    FramesBench bench;
    bench.function(0, "first");
    bench.function(0x18, "table_in_text", 'r');
    bench.function(0x30, "__pfx_second");
    bench.function(0x40, "second", 'T');
    bench.function(0x40, "alias_of_second", 'W');
    bench.function(0x60, "third");
    bench.row(0, call_by(OrcBase::sp, 8));
    bench.row(0x20, {.type = OrcType::undefined});
    bench.row(0x40, call_by(OrcBase::sp, 16));  // goes on into the third
    bench.word(sp0 + 8, 0x1234);
    const auto reader = bench.reader();
    std::string ranges;
    for (const auto& fde : reader.fdes()) {
        if (fde.start >= linked_text) ranges += hex(fde.start - linked_text) + "+" + hex(fde.size) + " ";
    }
    CHECK(ranges == "0x0+0x40 0x40+0x20 0x60+0xa0 ");
    CfiFrame frame, caller;
    REQUIRE(bench.step(reader, frame = frame_at(0x70, sp0), caller) == Outcome::caller);
    CHECK(caller.pc() == 0x1234);
    CHECK(bench.step(reader, frame = frame_at(0x38, sp0), caller) == Outcome::outermost);
}

TEST_CASE("orc frames: tables of modules are added to the same section") {
    FramesBench bench;
    bench.row(0, call_by(OrcBase::sp, 8));
    bench.symbols.finish();
    KernelFrames frames{frames_slide, linked_marks};
    REQUIRE(frames.add(bench.table, bench.symbols, VirtualAddress{run_text + 0x10}));
    OrcTable module;
    module.rows.push_back({VirtualAddress{0xffff'ffff'c012'3000}, call_by(OrcBase::sp, 16)});
    REQUIRE(frames.add(module, bench.symbols, VirtualAddress{0xffff'ffff'c012'3040}));
    REQUIRE(frames.add(OrcTable{}, bench.symbols, VirtualAddress{run_text}));
    const auto reader = CfiReader::parse(frames.take());
    REQUIRE(reader);
    const auto* fde = reader->find(0xffff'ffff'c012'3000 - frames_slide);
    REQUIRE(fde);
    CHECK(fde->size == 0x40);
    CHECK(reader->fdes().size() == 5);  // three marks
}

TEST_CASE("orc frames: a section that becomes too large is cut off, and it is said") {
    FramesBench bench;
    const OrcRule aligned = call_by(OrcBase::bp_indirect, -24, OrcBase::bp, 0);
    const OrcRule switched = call_by(OrcBase::sp_indirect, 24, OrcBase::previous_sp, -16);
    for (std::uint64_t i = 0; i < 1'000'000; ++i) bench.row(i, i % 2 == 0 ? aligned : switched);
    bench.symbols.finish();
    KernelFrames frames{frames_slide, linked_marks};
    const auto added = frames.add(bench.table, bench.symbols, VirtualAddress{run_text + 1'000'000});
    REQUIRE(!added);
    CHECK(added.error().code == Errc::bad_data);
    CHECK(added.error().message.find("is cut off at 0xffffffff9d") != std::string::npos);
    CHECK(frames.size() > KernelFrames::max_bytes);
    CHECK(frames.size() < KernelFrames::max_bytes + 4096);
    const auto reader = CfiReader::parse(frames.take());
    CHECK(reader);
}
