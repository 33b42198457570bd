#include "os-awareness/linux/unwind.h"

#include <doctest/doctest.h>

#include "backends/arch/x86_64.h"
#include "tests/support/orc_builder.h"

namespace {

using namespace exo;
using namespace exo::os;
using namespace exo::test;
using Addresses = std::vector<std::uint64_t>;

constexpr std::uint64_t unwind_text = 0xffff'ffff'8100'0000;
constexpr VirtualAddress unwind_stack{0xffff'c900'0010'0000};
constexpr std::uint64_t unwind_sp = raw(unwind_stack) + 0x2000;
constexpr std::uint64_t kernel_cs = 0x10, user_cs = 0x33;

OrcRule call_rule(OrcBase base, std::int16_t offset, OrcBase bp = OrcBase::undefined,
                  std::int16_t bp_offset = 0) {
    return {OrcType::call, base, bp, offset, bp_offset};
}

// Functions of 0x10 bytes each from unwind_text on, one rule for each.
struct UnwindBench {
    OrcTable table;
    FlatSpace stacks{unwind_stack, 0x1'0000};
    RegisterSet registers{x86::layout()};

    UnwindBench() {
        at(0x8, unwind_sp);
        registers.set(x86::rbp, 0xb0b);
    }
    void at(std::uint64_t offset, std::uint64_t sp) {
        registers.set(x86::rip, unwind_text + offset);
        registers.set(x86::rsp, sp);
    }
    std::uint64_t function(OrcRule rule) {
        const auto address = unwind_text + table.rows.size() * 0x10;
        table.rows.push_back({VirtualAddress{address}, rule});
        return address;
    }
    void word(std::uint64_t address, std::uint64_t value) { stacks.put(VirtualAddress{address}, value); }
    Backtrace unwind() {
        const VirtualAddress begin{unwind_text};
        const auto rules = [&](VirtualAddress address) {
            return raw(address) - unwind_text < 0x1000 ? table.rule_at(begin, address) : nullptr;
        };
        return Unwinder{stacks, rules}.unwind(registers);
    }
};

Addresses pcs(const Backtrace& trace) {
    Addresses all;
    for (const auto& frame : trace.frames) all.push_back(raw(frame.pc));
    return all;
}

}  // namespace

TEST_CASE_FIXTURE(UnwindBench, "calls, up to the end of the stack") {
    function(call_rule(OrcBase::sp, 0x20));
    const auto second = function(call_rule(OrcBase::sp, 0x10)) + 4;
    // The call is the last instruction of the function: it returns to where the next one begins.
    const auto third = function({OrcType::end_of_stack}) + 0x10;
    function(call_rule(OrcBase::sp, 8));
    word(unwind_sp + 0x18, second);
    word(unwind_sp + 0x28, third);
    const auto trace = unwind();
    CHECK(pcs(trace) == Addresses{unwind_text + 8, second, third});
    CHECK(trace.broken.empty());
    CHECK(trace.frames[0].interrupted);
    CHECK_FALSE(trace.frames[1].interrupted);
}

TEST_CASE_FIXTURE(UnwindBench, "frames by bp, where bp was saved") {
    function(call_rule(OrcBase::bp, 0x10, OrcBase::previous_sp, -0x10));
    const auto second = function(call_rule(OrcBase::bp, 0x10, OrcBase::bp, 0)) + 4;
    const auto third = function(call_rule(OrcBase::bp, 0x10)) + 4;
    const auto root = function({OrcType::end_of_stack}) + 4;
    const auto bp = unwind_sp + 0x100;
    registers.set(x86::rbp, bp);
    word(bp, bp + 0x40);
    word(bp + 8, second);
    word(bp + 0x40, bp + 0x80);
    word(bp + 0x48, third);
    word(bp + 0x88, root);
    const auto trace = unwind();
    CHECK(pcs(trace) == Addresses{unwind_text + 8, second, third, root});
    CHECK(trace.broken.empty());
}

TEST_CASE_FIXTURE(UnwindBench, "a stack that was left is named by a word on the new one") {
    const auto left = raw(unwind_stack) + 0x800;
    SUBCASE("by sp") {
        function(call_rule(OrcBase::sp_indirect, 8));
        word(unwind_sp, left);
        word(left, unwind_text + 0x14);
    }
    SUBCASE("by bp") {
        function(call_rule(OrcBase::bp_indirect, 8));
        registers.set(x86::rbp, unwind_sp + 0x10);
        word(unwind_sp + 0x18, left);
        word(left - 8, unwind_text + 0x14);
    }
    function({OrcType::end_of_stack});
    const auto trace = unwind();
    CHECK(pcs(trace) == Addresses{unwind_text + 8, unwind_text + 0x14});
    CHECK(trace.broken.empty());
}

TEST_CASE_FIXTURE(UnwindBench, "an interrupt of the kernel, and all the registers from before it") {
    function({OrcType::regs, OrcBase::sp, OrcBase::undefined, 0, 0});
    // Interrupted at its first instruction: the rule is its own, not that of the function before.
    const auto second = function(call_rule(OrcBase::r10, 0x10));
    const auto root = function({OrcType::end_of_stack}) + 4;
    const auto caller_sp = unwind_sp + 0x400;
    word(unwind_sp + 56, caller_sp - 0x10);  // r10
    word(unwind_sp + 128, second);
    word(unwind_sp + 136, kernel_cs);
    word(unwind_sp + 152, unwind_sp + 0x300);
    word(caller_sp - 8, root);
    const auto trace = unwind();
    CHECK(pcs(trace) == Addresses{unwind_text + 8, second, root});
    CHECK(trace.frames[1].interrupted);
    CHECK(trace.broken.empty());
}

TEST_CASE_FIXTURE(UnwindBench, "an interrupt before registers are saved: five words, bp as it is") {
    function({OrcType::regs_partial, OrcBase::sp, OrcBase::undefined, 8, 0});
    const auto second = function(call_rule(OrcBase::bp, 8)) + 4;
    const auto root = function({OrcType::end_of_stack}) + 4;
    registers.set(x86::rbp, unwind_sp + 0x200);
    word(unwind_sp + 8, second);
    word(unwind_sp + 16, kernel_cs);
    word(unwind_sp + 32, unwind_sp + 0x100);
    word(unwind_sp + 0x200, root);
    const auto trace = unwind();
    CHECK(pcs(trace) == Addresses{unwind_text + 8, second, root});
    CHECK(trace.broken.empty());
}

TEST_CASE_FIXTURE(UnwindBench, "what came from user mode, and a kernel thread, have no caller") {
    function({OrcType::regs, OrcBase::sp, OrcBase::undefined, 0, 0});
    SUBCASE("user mode") {
        word(unwind_sp + 128, 0x401000);
        word(unwind_sp + 136, user_cs);
    }
    SUBCASE("kernel thread") {}
    const auto trace = unwind();
    CHECK(pcs(trace) == Addresses{unwind_text + 8});
    CHECK(trace.broken.empty());
}

TEST_CASE_FIXTURE(UnwindBench, "in user mode there is one frame") {
    registers.set(x86::rip, 0x401000);
    const auto trace = unwind();
    CHECK(pcs(trace) == Addresses{0x401000});
    CHECK(trace.broken.empty());
}

TEST_CASE_FIXTURE(UnwindBench, "a call through a null pointer") {
    function({OrcType::end_of_stack});
    registers.set(x86::rip, 0);
    word(unwind_sp, unwind_text + 4);
    const auto trace = unwind();
    CHECK(pcs(trace) == Addresses{0, unwind_text + 4});
    CHECK(trace.broken.empty());
}

TEST_CASE_FIXTURE(UnwindBench, "where it cannot go on it says why") {
    std::string why;
    std::size_t frames = 1;
    SUBCASE("no program counter") {
        registers.set_unavailable(x86::rip);
        frames = 0;
        why = "its program counter is not known";
    }
    SUBCASE("code of a module") {
        registers.set(x86::rip, 0xffffffffc0123456);
        why =
            "no unwind table tells of 0xffffffffc0123456: it was generated, or is no code, or of a module "
            "that has none";
    }
    SUBCASE("code that objtool did not understand") {
        function({});
        why = "the unwind table does not know the code at 0xffffffff81000008";
    }
    SUBCASE("stack that is not mapped") {
        function(call_rule(OrcBase::sp, 8));
        at(8, 0xffffc90000000000);
        why = "where 0xffffffff81000008 returns to cannot be read at 0xffffc90000000000";
    }
    SUBCASE("user memory is no kernel stack") {
        function(call_rule(OrcBase::sp, 8));
        at(8, 0x7fff0000);
        why = "where 0xffffffff81000008 returns to cannot be read at 0x7fff0000";
    }
    SUBCASE("a register of a sleeping task that nobody knows") {
        function(call_rule(OrcBase::r13, 8));
        why = "where 0xffffffff81000008 returns to cannot be read: a register that tells is not known";
    }
    SUBCASE("registers that are not there") {
        function({OrcType::regs, OrcBase::di, OrcBase::undefined, 0, 0});
        why = "the registers that 0xffffffff81000008 saved cannot be found";
    }
    SUBCASE("a return to no code") {
        function(call_rule(OrcBase::sp, 8));
        word(unwind_sp, 0x1234);
        frames = 2;
        why =
            "no unwind table tells of 0x1234: it was generated, or is no code, or of a module that has none";
    }
    SUBCASE("a circle") {
        function(call_rule(OrcBase::bp, 0x10));
        registers.set(x86::rbp, unwind_sp);
        word(unwind_sp + 8, unwind_text + 4);
        frames = 2;
        why = "the stack goes round to 0xffffc90000102010 again";
    }
    SUBCASE("a stack without end") {
        function(call_rule(OrcBase::sp, 8));
        for (std::uint64_t i = 0; i < 0xe000; i += 8) word(unwind_sp + i, unwind_text + 4);
        frames = Unwinder::max_frames;
        why = "more than 2048 frames";
    }
    const auto trace = unwind();
    CHECK(trace.frames.size() == frames);
    CHECK(trace.broken == why);
}
