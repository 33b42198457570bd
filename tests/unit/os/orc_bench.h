// One table of ORC, its code at run_text, and stacks: what the tests of frames share.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <string_view>

#include "os-awareness/linux/orc_frames.h"
#include "tests/support/cfi_reader.h"
#include "tests/support/orc_builder.h"

namespace exo::test {

inline constexpr std::uint64_t frames_slide = 0x1c00'0000;
inline constexpr VirtualAddress linked_marks{0xffff'ffff'80ff'f000};
inline constexpr std::uint64_t linked_text = 0xffff'ffff'8100'0000;
inline constexpr std::uint64_t run_text = linked_text + frames_slide;
inline constexpr VirtualAddress task_stack{0xffff'c900'0010'0000};
inline constexpr std::uint64_t sp0 = raw(task_stack) + 0x2000;

// A table whose code is 0x100 bytes at run_text, and stacks. Frames are looked at as a debugger does that has
// loaded the section at `frames_slide`: the test takes the slide off every pc.
struct FramesBench {
    os::OrcTable table;
    os::SymbolTable symbols;
    FlatSpace stacks{task_stack, 0x1'0000};
    std::uint64_t rows_end = run_text + 0x100;

    void row(std::uint64_t offset, os::OrcRule rule) {
        table.rows.push_back({VirtualAddress{run_text + offset}, rule});
    }
    void function(std::uint64_t offset, std::string_view name, char type = 't') {
        symbols.add(VirtualAddress{run_text + offset}, type, name);
    }
    void word(std::uint64_t address, std::uint64_t value) { stacks.put(VirtualAddress{address}, value); }

    CfiReader reader() {
        symbols.finish();
        os::KernelFrames frames{frames_slide, linked_marks};
        REQUIRE(frames.add(table, symbols, VirtualAddress{rows_end}));
        auto parsed = CfiReader::parse(frames.take());
        REQUIRE(parsed);
        REQUIRE(parsed->well_formed());
        return *parsed;
    }
    CfiReader::Outcome step(const CfiReader& reader, CfiFrame& frame, CfiFrame& caller) {
        return reader.step(frame, [&](std::uint64_t a) { return stacks.word(a); }, caller);
    }
};

inline CfiFrame frame_at(std::uint64_t offset, std::uint64_t sp) {
    CfiFrame frame;
    frame.registers = {{os::cfi::Register::return_address, linked_text + offset},
                       {os::cfi::Register::rsp, sp}};
    return frame;
}

inline os::OrcRule call_by(os::OrcBase base, std::int16_t offset, os::OrcBase bp = os::OrcBase::undefined,
                           std::int16_t bp_offset = 0) {
    return {os::OrcType::call, base, bp, offset, bp_offset};
}

inline std::uint64_t mark(std::size_t index) {
    return raw(linked_marks) + os::unwind_marks.at(index).offset + os::unwind_mark_bytes / 2;
}

}  // namespace exo::test
