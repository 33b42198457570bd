#include "os-awareness/linux/orc_rules.h"

#include "os-awareness/linux/orc_frames.h"

namespace exo::os {
namespace {

using cfi::Expression;
using cfi::Instructions;
using cfi::Register;
using cfi::word_bytes;

constexpr Register general_registers[] = {
    Register::rax, Register::rdx, Register::rcx, Register::rbx, Register::rsi, Register::rdi, Register::r8,
    Register::r9,  Register::r10, Register::r11, Register::r12, Register::r13, Register::r14, Register::r15,
};

struct SavedSlot {
    Register number;
    int offset;
};

// struct pt_regs (arch/x86/include/uapi/asm/ptrace.h), without what the CPU pushes.
constexpr SavedSlot pushed_by_kernel[] = {
    {Register::r15, 0},  {Register::r14, 8},  {Register::r13, 16}, {Register::r12, 24},  {Register::rbp, 32},
    {Register::rbx, 40}, {Register::r11, 48}, {Register::r10, 56}, {Register::r9, 64},   {Register::r8, 72},
    {Register::rax, 80}, {Register::rcx, 88}, {Register::rdx, 96}, {Register::rsi, 104}, {Register::rdi, 112},
};
// What the CPU pushes, at the end of pt_regs: ip, cs, flags, sp, ss (Intel SDM vol. 3, 6.14.2).
constexpr int iret_frame_bytes = 40;
constexpr int pt_regs_bytes = 168;
// From the end of that frame, which is the CFA of entry code.
constexpr int iret_ip = -40;
constexpr int iret_cs = -32;
constexpr int iret_flags = -24;
constexpr int iret_sp = -16;
constexpr unsigned privilege_mask = 3;  // of cs

// The caller's pc is looked up less one where it is in an ordinary frame: the middle is in the mark either
// way.
VirtualAddress mark_pc(VirtualAddress marks, std::size_t index) {
    return marks + unwind_marks.at(index).offset + unwind_mark_bytes / 2;
}
constexpr std::size_t user_mark = 0;
constexpr std::size_t interrupted_mark = 1;
constexpr std::size_t stack_switch_mark = 2;

// Where the value of a base comes from; sp and bp of the indirect ones.
Register register_of(OrcBase base) {
    switch (base) {
        case OrcBase::ax: return Register::rax;
        case OrcBase::dx: return Register::rdx;
        case OrcBase::di: return Register::rdi;
        case OrcBase::bp:
        case OrcBase::bp_indirect: return Register::rbp;
        case OrcBase::r10: return Register::r10;
        case OrcBase::r13: return Register::r13;
        case OrcBase::sp:
        case OrcBase::sp_indirect:
        case OrcBase::previous_sp:
        case OrcBase::undefined: break;
    }
    return Register::rsp;
}

bool is_indirect(OrcBase base) { return base == OrcBase::bp_indirect || base == OrcBase::sp_indirect; }

// From cs on the stack, with the CFA on top: 0 if the kernel was interrupted.
Expression from_user_mode() { return Expression{}.duplicate().add(iret_cs).deref().mask(privilege_mask); }

// Caller of entry code: user mode, or what was interrupted.
Instructions entry_code(int frame_bytes, VirtualAddress marks) {
    Instructions rules;
    rules.def_cfa(Register::rsp, frame_bytes);
    rules.is(Register::return_address,
             from_user_mode().if_else(Expression{}.address(mark_pc(marks, user_mark)),
                                      Expression{}.address(mark_pc(marks, interrupted_mark))));
    // The frame of what was interrupted is found from here, so that its sp comes later.
    rules.is(Register::rsp, from_user_mode().if_else(Expression{}.add(iret_sp).deref(), Expression{}));
    rules.saved(Register::rflags, iret_flags);
    return rules;
}

}  // namespace

OrcFrameForm orc_frame_form(const OrcRule& rule, OrcFunction function) {
    if (rule.type == OrcType::regs) return OrcFrameForm::regs;
    if (rule.type == OrcType::regs_partial) return OrcFrameForm::regs_partial;
    const bool by_bp = rule.sp == OrcBase::bp && function == OrcFunction::stack_switch;
    return rule.sp == OrcBase::sp_indirect || by_bp ? OrcFrameForm::stack_switch : OrcFrameForm::call;
}

Instructions orc_call_frame() {
    Instructions rules;
    rules.def_cfa(Register::rsp, word_bytes);
    rules.saved(Register::return_address, -word_bytes);
    // ORC does not say where a function saved them. Without this a debugger takes them as unchanged.
    for (const auto reg : general_registers) rules.undefined(reg);
    return rules;
}

Instructions orc_regs_frame(VirtualAddress marks) {
    auto rules = entry_code(pt_regs_bytes, marks);
    for (const auto& slot : pushed_by_kernel) rules.saved(slot.number, slot.offset - pt_regs_bytes);
    return rules;
}

Instructions orc_regs_partial_frame(VirtualAddress marks) {
    auto rules = entry_code(iret_frame_bytes, marks);
    for (const auto reg : general_registers) rules.same(reg);
    return rules;
}

Instructions orc_user_frame() {
    Instructions rules;
    rules.def_cfa(Register::rsp, word_bytes);
    rules.undefined(Register::return_address);
    return rules;
}

// rsp is the end of the iret frame here. Another CFA than entry code's keeps the two frames apart.
Instructions orc_interrupted_mark() {
    Instructions rules;
    rules.def_cfa(Register::rsp, word_bytes);
    rules.saved(Register::return_address, iret_ip - word_bytes);
    rules.saved(Register::rsp, iret_sp - word_bytes);
    for (const auto reg : general_registers) rules.same(reg);
    return rules;
}

// rsp is the caller's already.
Instructions orc_stack_switch_mark() {
    Instructions rules;
    rules.def_cfa(Register::rsp, 0);
    rules.saved(Register::return_address, -word_bytes);
    return rules;
}

void OrcRuleWriter::begin(OrcFrameForm form) {
    instructions_.clear();
    form_ = form;
    ended_ = false;
    now_ = {.type = OrcType::call, .sp = OrcBase::sp, .sp_offset = word_bytes};
    if (form == OrcFrameForm::regs) now_ = {.type = OrcType::regs, .sp = OrcBase::sp};
    if (form == OrcFrameForm::regs_partial) now_ = {.type = OrcType::regs_partial, .sp = OrcBase::sp};
}

bool OrcRuleWriter::differs(const OrcRule& rule, OrcFunction function) const {
    const bool regs = form_ == OrcFrameForm::regs || form_ == OrcFrameForm::regs_partial;
    const bool ends = !rule.has_caller() || (regs && function == OrcFunction::root);
    return ends != ended_ || (rule.has_caller() && rule != now_);
}

void OrcRuleWriter::write(const OrcRule& rule, OrcFunction function) {
    switch (form_) {
        case OrcFrameForm::call: return write_call(rule);
        case OrcFrameForm::stack_switch: return write_stack_switch(rule);
        case OrcFrameForm::regs:
        case OrcFrameForm::regs_partial: return write_regs(rule, function == OrcFunction::root);
    }
}

void OrcRuleWriter::write_call(const OrcRule& rule) {
    if (!rule.has_caller()) {
        // The CFA is computed all the same, and must not be read from memory that may not be there.
        if (is_indirect(now_.sp)) {
            instructions_.def_cfa(Register::rsp, word_bytes);
            now_.sp = OrcBase::sp;
            now_.sp_offset = word_bytes;
        }
        instructions_.undefined(Register::return_address);
        ended_ = true;
        return;
    }
    if (ended_) instructions_.saved(Register::return_address, -word_bytes);
    ended_ = false;
    write_cfa(rule);
    write_bp(rule);
    now_ = rule;
}

void OrcRuleWriter::write_cfa(const OrcRule& rule) {
    if (rule.sp == now_.sp && rule.sp_offset == now_.sp_offset) return;
    const auto base = register_of(rule.sp);
    if (rule.sp == OrcBase::bp_indirect) {
        instructions_.def_cfa(Expression{}.reg(base, rule.sp_offset).deref());
    } else if (rule.sp == now_.sp && rule.sp_offset >= 0 && now_.sp_offset >= 0) {
        instructions_.def_cfa_offset(static_cast<std::uint64_t>(rule.sp_offset));
    } else {
        instructions_.def_cfa(base, rule.sp_offset);
    }
}

void OrcRuleWriter::write_bp(const OrcRule& rule) {
    if (rule.bp == now_.bp && rule.bp_offset == now_.bp_offset) return;
    if (rule.bp == OrcBase::previous_sp) {
        instructions_.saved(Register::rbp, rule.bp_offset);
    } else if (rule.bp == OrcBase::bp) {
        instructions_.saved_at(Register::rbp, Expression{}.reg(Register::rbp, rule.bp_offset));
    } else {
        instructions_.same(Register::rbp);
    }
}

// The stack that was left is named by the word at sp (arch/x86/include/asm/irq_stack.h, call_on_stack) or by
// bp. If it lies below this one, this frame ends here, and an 'S' frame goes over to it.
void OrcRuleWriter::write_stack_switch(const OrcRule& rule) {
    const auto previous_sp = [&](std::int64_t more = 0) {
        if (rule.sp == OrcBase::bp) return Expression{}.reg(Register::rbp, rule.sp_offset + more);
        return Expression{}.reg(Register::rsp, 0).deref().add(rule.sp_offset + more);
    };
    const auto goes_up = previous_sp().reg(Register::rsp, 0).greater();
    const auto choose = [&](const Expression& up, const Expression& down) {
        return Expression{goes_up}.if_else(up, down);
    };
    instructions_.def_cfa(choose(previous_sp(), Expression{}.reg(Register::rsp, word_bytes)));
    instructions_.is(
        Register::return_address,
        choose(previous_sp(-word_bytes).deref(), Expression{}.address(mark_pc(marks_, stack_switch_mark))));
    instructions_.is(Register::rsp, previous_sp());
    if (rule.bp == OrcBase::previous_sp) {
        instructions_.saved_at(Register::rbp, previous_sp(rule.bp_offset));
    } else if (rule.bp == OrcBase::bp) {
        instructions_.saved_at(Register::rbp, Expression{}.reg(Register::rbp, rule.bp_offset));
    } else {
        instructions_.same(Register::rbp);
    }
    now_ = rule;
}

void OrcRuleWriter::write_regs(const OrcRule& rule, bool root) {
    const auto bytes = form_ == OrcFrameForm::regs ? pt_regs_bytes : iret_frame_bytes;
    const auto base = register_of(rule.sp);
    if (is_indirect(rule.sp)) {
        instructions_.def_cfa(Expression{}.reg(base, rule.sp_offset).deref().add(bytes));
    } else if (rule != now_) {
        instructions_.def_cfa(base, rule.sp_offset + bytes);
    }
    if (root && !ended_) instructions_.undefined(Register::return_address);
    ended_ = root;
    now_ = rule;
}

}  // namespace exo::os
