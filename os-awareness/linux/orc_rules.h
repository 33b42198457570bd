// Rules of ORC as instructions of call frame information; see orc_frames.h for how frames follow each other.
#pragma once

#include "os-awareness/dwarf/cfi.h"
#include "os-awareness/linux/orc.h"

namespace exo::os {

// Rules of different forms do not share an FDE: they begin with different rules for all registers.
enum class OrcFrameForm : std::uint8_t { call, stack_switch, regs, regs_partial };

// What is known of some functions by their names.
enum class OrcFunction : std::uint8_t {
    ordinary,
    root,          // its frame with pt_regs has no caller
    stack_switch,  // it keeps the sp of the stack that it leaves in bp
};

OrcFrameForm orc_frame_form(const OrcRule& rule, OrcFunction function);

// What CIEs say. `marks` as given to KernelFrames.
cfi::Instructions orc_call_frame();  // for `call` and `stack_switch`
cfi::Instructions orc_regs_frame(VirtualAddress marks);
cfi::Instructions orc_regs_partial_frame(VirtualAddress marks);
cfi::Instructions orc_user_frame();
cfi::Instructions orc_interrupted_mark();
cfi::Instructions orc_stack_switch_mark();

// The instructions of one FDE at a time. Knows which rules hold, and writes only what changes.
class OrcRuleWriter {
public:
    explicit OrcRuleWriter(VirtualAddress marks) : marks_(marks) {}

    void begin(OrcFrameForm form);
    [[nodiscard]] bool differs(const OrcRule& rule, OrcFunction function) const;
    void advance(std::uint64_t bytes) { instructions_.advance(bytes); }
    void write(const OrcRule& rule, OrcFunction function);  // of the form that began

    [[nodiscard]] const cfi::Instructions& instructions() const { return instructions_; }

private:
    void write_call(const OrcRule& rule);
    void write_stack_switch(const OrcRule& rule);
    void write_regs(const OrcRule& rule, bool root);
    void write_cfa(const OrcRule& rule);
    void write_bp(const OrcRule& rule);

    VirtualAddress marks_;
    cfi::Instructions instructions_;
    OrcFrameForm form_ = OrcFrameForm::call;
    OrcRule now_;         // where `ended_`, the rule before, which still says where the CFA is
    bool ended_ = false;  // the return address is undefined
};

}  // namespace exo::os
