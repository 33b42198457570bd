#include "os-awareness/linux/orc_frames.h"

#include <doctest/doctest.h>

#include "tests/unit/os/orc_bench.h"

using namespace exo;
using namespace exo::os;
using namespace exo::test;
using exo::os::cfi::Register;
using Outcome = exo::test::CfiReader::Outcome;

namespace {

// struct pt_regs as the kernel has it on the stack; each register's value tells its place.
constexpr Register pt_regs_order[] = {
    Register::r15, Register::r14, Register::r13, Register::r12, Register::rbp,
    Register::rbx, Register::r11, Register::r10, Register::r9,  Register::r8,
    Register::rax, Register::rcx, Register::rdx, Register::rsi, Register::rdi,
};
constexpr std::uint64_t iret_frame = 128;

void put_iret_frame(FramesBench& bench, std::uint64_t at, std::uint64_t ip, std::uint64_t cs,
                    std::uint64_t sp) {
    std::uint64_t place = at;
    for (const auto value : {ip, cs, std::uint64_t{0x246}, sp, std::uint64_t{0x18}}) {
        bench.word(place, value);
        place += 8;
    }
}

void put_pt_regs(FramesBench& bench, std::uint64_t at, std::uint64_t ip, std::uint64_t cs, std::uint64_t sp) {
    for (std::uint64_t i = 0; i < std::size(pt_regs_order); ++i) bench.word(at + 8 * i, 0x1000 + i);
    put_iret_frame(bench, at + iret_frame, ip, cs, sp);
}

void check_pt_regs(const CfiFrame& frame) {
    for (std::uint64_t i = 0; i < std::size(pt_regs_order); ++i)
        CHECK(frame.get(pt_regs_order[i]) == 0x1000 + i);
    CHECK(frame.get(Register::rflags) == 0x246);
}

}  // namespace

TEST_CASE("orc frames: a call, found by the stack pointer") {
    FramesBench bench;
    bench.row(0, call_by(OrcBase::sp, 8));
    bench.row(1, call_by(OrcBase::sp, 16, OrcBase::previous_sp, -16));
    bench.row(0x50, call_by(OrcBase::sp, 24, OrcBase::previous_sp, -16));
    bench.row(0x80, call_by(OrcBase::sp, 8));
    bench.word(sp0 + 8, 0xb9);
    bench.word(sp0 + 16, 0x1234);
    const auto reader = bench.reader();
    CfiFrame caller;
    auto frame = frame_at(0x50, sp0);
    frame.registers[Register::rbx] = 7;
    REQUIRE(bench.step(reader, frame, caller) == Outcome::caller);
    CHECK(frame.cfa == sp0 + 24);
    CHECK(caller.pc() == 0x1234);
    CHECK(caller.get(Register::rsp) == sp0 + 24);
    CHECK(caller.get(Register::rbp) == 0xb9);
    CHECK(!caller.get(Register::rbx));  // saved somewhere; ORC does not say where

    // A return address belongs to the call before it: the row of 0x50 less one.
    frame = frame_at(0x50, sp0);
    frame.called = true;
    bench.word(sp0 + 8, 0x4321);
    REQUIRE(bench.step(reader, frame, caller) == Outcome::caller);
    CHECK(caller.pc() == 0x4321);

    frame = frame_at(0x90, sp0 + 16);
    frame.registers[Register::rbp] = 0xaa;
    REQUIRE(bench.step(reader, frame, caller) == Outcome::caller);
    CHECK(caller.pc() == 0x1234);
    CHECK(caller.get(Register::rbp) == 0xaa);
    CHECK(bench.step(reader, frame = frame_at(0x100, sp0), caller) == Outcome::no_fde);
}

TEST_CASE("orc frames: other bases") {
    struct {
        OrcBase base;
        Register reg;
    } const bases[] = {{OrcBase::bp, Register::rbp},  {OrcBase::ax, Register::rax},
                       {OrcBase::dx, Register::rdx},  {OrcBase::di, Register::rdi},
                       {OrcBase::r10, Register::r10}, {OrcBase::r13, Register::r13}};
    for (const auto& [base, reg] : bases) {
        FramesBench bench;
        bench.row(0, call_by(base, 16));
        bench.word(sp0 + 0x48, 0x1234);
        auto frame = frame_at(0, sp0);
        frame.registers[reg] = sp0 + 0x40;
        CfiFrame caller;
        REQUIRE(bench.step(bench.reader(), frame, caller) == Outcome::caller);
        CHECK(caller.pc() == 0x1234);
        CHECK(caller.get(Register::rsp) == sp0 + 0x50);
    }
}

// What GCC makes where it aligns the stack: the caller's sp is kept below bp.
TEST_CASE("orc frames: an aligned stack") {
    FramesBench bench;
    bench.row(0, call_by(OrcBase::sp, 8));
    bench.row(8, call_by(OrcBase::bp_indirect, -24, OrcBase::bp, 0));
    bench.row(16, {.type = OrcType::undefined});
    bench.row(20, call_by(OrcBase::bp_indirect, -24, OrcBase::bp, 0));
    bench.row(24, call_by(OrcBase::sp, 16));
    const auto bp = sp0 + 0x100;
    bench.word(bp - 24, sp0 + 0x400);
    bench.word(bp, 0xb9);
    bench.word(sp0 + 0x3f8, 0x1234);
    bench.word(sp0 + 8, 0x5678);
    const auto reader = bench.reader();
    CfiFrame frame, caller;
    for (const std::uint64_t offset : {8, 20}) {
        frame = frame_at(offset, sp0);
        frame.registers[Register::rbp] = bp;
        REQUIRE(bench.step(reader, frame, caller) == Outcome::caller);
        CHECK(caller.pc() == 0x1234);
        CHECK(caller.get(Register::rsp) == sp0 + 0x400);
        CHECK(caller.get(Register::rbp) == 0xb9);
    }
    // Where nothing is known, nothing is read either.
    CHECK(bench.step(reader, frame = frame_at(16, 0), caller) == Outcome::outermost);
    REQUIRE(bench.step(reader, frame = frame_at(24, sp0), caller) == Outcome::caller);
    CHECK(caller.pc() == 0x5678);
}

TEST_CASE("orc frames: ends of stacks are outermost, and calls after them are calls") {
    FramesBench bench;
    bench.row(0, {.type = OrcType::end_of_stack});
    bench.row(0x10, call_by(OrcBase::sp, 8));
    bench.row(0x20, {.type = OrcType::undefined});
    bench.row(0x30, call_by(OrcBase::sp, 8));
    bench.word(sp0, 0x1234);
    const auto reader = bench.reader();
    CfiFrame caller, frame;
    CHECK(bench.step(reader, frame = frame_at(0, sp0), caller) == Outcome::outermost);
    CHECK(bench.step(reader, frame = frame_at(0x20, sp0), caller) == Outcome::outermost);
    for (const std::uint64_t offset : {0x10, 0x30}) {
        REQUIRE(bench.step(reader, frame = frame_at(offset, sp0), caller) == Outcome::caller);
        CHECK(caller.pc() == 0x1234);
    }
}

TEST_CASE("orc frames: an interrupted kernel goes on where it was, with all its registers") {
    FramesBench bench;
    bench.row(0, {OrcType::regs, OrcBase::sp, OrcBase::undefined, 8, 0});
    bench.row(0x80, call_by(OrcBase::sp, 8));
    bench.row(0x90, call_by(OrcBase::sp, 16));
    put_pt_regs(bench, sp0 + 8, linked_text + 0x90, 0x10, sp0 + 0x400);
    bench.word(sp0 + 0x408, 0x1234);
    const auto reader = bench.reader();
    CfiFrame between, interrupted, caller;
    auto frame = frame_at(4, sp0);
    frame.called = true;
    REQUIRE(bench.step(reader, frame, between) == Outcome::caller);
    CHECK(!frame.signal);  // it keeps its name
    CHECK(frame.cfa == sp0 + 8 + 168);
    CHECK(hex(between.pc()) == hex(mark(1)));
    REQUIRE(bench.step(reader, between, interrupted) == Outcome::caller);
    CHECK(between.signal);
    CHECK(between.cfa != frame.cfa);
    CHECK(hex(interrupted.pc()) == hex(linked_text + 0x90));
    CHECK(hex(*interrupted.get(Register::rsp)) == hex(sp0 + 0x400));
    check_pt_regs(interrupted);
    // Not the row of the instruction before.
    REQUIRE(bench.step(reader, interrupted, caller) == Outcome::caller);
    CHECK(caller.pc() == 0x1234);
}

TEST_CASE("orc frames: user mode is a root, with its registers") {
    for (const std::uint64_t cs : {0x33, 0x23}) {
        FramesBench bench;
        bench.row(0, {OrcType::regs, OrcBase::sp, OrcBase::undefined, 0, 0});
        put_pt_regs(bench, sp0, 0x7f00'0000'1000, cs, 0x7ffd'0000'2000);
        const auto reader = bench.reader();
        auto frame = frame_at(4, sp0);
        CfiFrame user, none;
        REQUIRE(bench.step(reader, frame, user) == Outcome::caller);
        CHECK(hex(user.pc()) == hex(mark(0)));
        CHECK(hex(*user.get(Register::rsp)) == "0x7ffd00002000");
        check_pt_regs(user);
        CHECK(bench.step(reader, user, none) == Outcome::outermost);
    }
}

TEST_CASE("orc frames: code of user mode has no caller, if wanted") {
    for (const bool wanted : {false, true}) {
        KernelFrames frames{frames_slide, linked_marks};
        if (wanted) frames.end_at_user_mode();
        const auto reader = CfiReader::parse(frames.take());
        REQUIRE(reader);
        for (const std::uint64_t pc : {frames_slide, 0x5555'5555'5000UL, 0xff'ffff'ffff'ffffUL}) {
            CfiFrame frame, caller;
            frame.registers = {{Register::return_address, pc - frames_slide}, {Register::rsp, 0x1000}};
            CHECK(reader->step(
                      frame, [](auto) { return std::nullopt; }, caller) ==
                  (wanted ? Outcome::outermost : Outcome::no_fde));
        }
        CHECK(!reader->find(0xffff'8000'0000'0000 - frames_slide));
    }
}

TEST_CASE("orc frames: entry code that has pushed nothing yet") {
    FramesBench bench;
    bench.row(0, {OrcType::regs_partial, OrcBase::sp, OrcBase::undefined, 16, 0});
    bench.row(0x10, {OrcType::regs_partial, OrcBase::dx, OrcBase::undefined, 8, 0});
    bench.row(0x20, {OrcType::regs_partial, OrcBase::sp, OrcBase::undefined, -80, 0});
    const auto reader = bench.reader();
    struct {
        std::uint64_t offset, sp, dx;
    } const places[] = {{0, sp0, 1}, {0x10, 1, sp0 + 8}, {0x20, sp0 + 96, 1}};
    for (const auto& place : places) {
        put_iret_frame(bench, sp0 + 16, linked_text + 0x90, 0x10, sp0 + 0x400);
        auto frame = frame_at(place.offset, place.sp);
        frame.registers[Register::rdx] = place.dx;
        frame.registers[Register::r12] = 0x12;
        CfiFrame between, interrupted;
        REQUIRE(bench.step(reader, frame, between) == Outcome::caller);
        REQUIRE(bench.step(reader, between, interrupted) == Outcome::caller);
        CHECK(hex(interrupted.pc()) == hex(linked_text + 0x90));
        CHECK(hex(*interrupted.get(Register::rsp)) == hex(sp0 + 0x400));
        CHECK(interrupted.get(Register::r12) == 0x12);
        CHECK(interrupted.get(Register::rdx) == place.dx);
        CHECK(interrupted.get(Register::rflags) == 0x246);
    }
}

TEST_CASE("orc frames: pt_regs of which the address is on the stack") {
    FramesBench bench;
    bench.row(0, {OrcType::regs, OrcBase::sp_indirect, OrcBase::undefined, 8, 0});
    bench.word(sp0 + 8, sp0 + 0x800);
    put_pt_regs(bench, sp0 + 0x800, linked_text + 0x90, 0x10, sp0 + 0x400);
    const auto reader = bench.reader();
    auto frame = frame_at(0, sp0);
    CfiFrame between, interrupted;
    REQUIRE(bench.step(reader, frame, between) == Outcome::caller);
    REQUIRE(bench.step(reader, between, interrupted) == Outcome::caller);
    CHECK(hex(interrupted.pc()) == hex(linked_text + 0x90));
    check_pt_regs(interrupted);
}

TEST_CASE("orc frames: system calls end at their entry") {
    FramesBench bench;
    bench.function(0, "entry_SYSCALL_64", 'T');
    bench.function(0x10, "entry_SYSCALL_64_after_hwframe", 'T');
    bench.function(0x40, "common_interrupt_return", 'T');
    bench.row(0, {.type = OrcType::end_of_stack});
    bench.row(0x20, {OrcType::regs, OrcBase::sp, OrcBase::undefined, 0, 0});
    bench.row(0x24, {OrcType::regs, OrcBase::sp, OrcBase::undefined, 8, 0});
    put_pt_regs(bench, sp0, 0x7f00'0000'1000, 0x33, 0x7ffd'0000'2000);
    const auto reader = bench.reader();
    CfiFrame frame, caller;
    for (const std::uint64_t offset : {0, 0x12, 0x20, 0x24, 0x3f}) {
        CHECK(bench.step(reader, frame = frame_at(offset, sp0), caller) == Outcome::outermost);
    }
    CHECK(bench.step(reader, frame = frame_at(0x40, sp0 - 8), caller) == Outcome::caller);
    CHECK(hex(caller.pc()) == hex(mark(0)));
}

// gdb's check: a frame that is not of type SIGTRAMP is not below the one inside of it.
TEST_CASE("orc frames: a stack left for another") {
    for (const bool by_bp : {false, true}) {
        for (const bool other_above : {false, true}) {
            CAPTURE(by_bp);
            CAPTURE(other_above);
            FramesBench bench;
            bench.function(0, by_bp ? "asm_call_sysvec_on_stack" : "common_interrupt");
            bench.row(0, call_by(by_bp ? OrcBase::bp : OrcBase::sp_indirect, 24, OrcBase::previous_sp, -16));
            // On the interrupt stack. The word at its sp, or bp, is the task's sp.
            const auto interrupt_sp = other_above ? sp0 + 0x4000 : sp0 - 0x1000;
            if (!by_bp) bench.word(interrupt_sp, sp0);
            bench.word(sp0 + 8, 0xb9);
            bench.word(sp0 + 16, linked_text + 0x80);
            const auto reader = bench.reader();
            auto frame = frame_at(4, interrupt_sp);
            frame.registers[Register::rbp] = sp0;
            CfiFrame caller;
            REQUIRE(bench.step(reader, frame, caller) == Outcome::caller);
            CHECK(frame.cfa > interrupt_sp);
            CHECK(!frame.signal);
            if (other_above) {
                CHECK(hex(caller.pc()) == hex(mark(2)));
                auto between = caller;
                REQUIRE(bench.step(reader, between, caller) == Outcome::caller);
                CHECK(between.signal);
                CHECK(between.cfa == sp0 + 24);
            }
            CHECK(hex(caller.pc()) == hex(linked_text + 0x80));
            CHECK(hex(*caller.get(Register::rsp)) == hex(sp0 + 24));
            CHECK(caller.get(Register::rbp) == 0xb9);
        }
    }
}
