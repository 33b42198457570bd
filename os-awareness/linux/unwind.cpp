#include "os-awareness/linux/unwind.h"

#include <algorithm>
#include <array>
#include <set>

#include "backends/arch/x86_64.h"
#include "os-awareness/linux/constants.h"

namespace exo::os {
namespace {

struct BaseRegister {
    OrcBase base;
    RegisterNumber number;
    std::uint64_t saved;  // offset in struct pt_regs (arch/x86/include/uapi/asm/ptrace.h)
};

constexpr std::uint64_t iret_in_pt_regs = 128;  // ip, cs, flags, sp, ss
constexpr BaseRegister base_registers[] = {
    {OrcBase::r13, x86::r13, 16}, {OrcBase::bp, x86::rbp, 32}, {OrcBase::r10, x86::r10, 56},
    {OrcBase::ax, x86::rax, 80},  {OrcBase::dx, x86::rdx, 96}, {OrcBase::di, x86::rdi, 112},
};
constexpr std::size_t base_kinds = static_cast<std::size_t>(OrcBase::sp_indirect) + 1;

// What the CPU pushes when it enters the kernel (Intel SDM vol. 3, 6.14.2).
struct IretFrame {
    std::uint64_t ip, cs, flags, sp, ss;
};
constexpr std::uint64_t privilege_level = 3;  // of cs; 3 is user mode

// Where a call through a null pointer went: nothing but the return address is on the stack.
constexpr OrcRule null_call{OrcType::call, OrcBase::sp, OrcBase::undefined, 8, 0};

class Unwinding {
public:
    Unwinding(const Unwinder::Rules& rules, AddressSpace& space, const RegisterSet& registers)
        : rules_(&rules), space_(&space), ip_(registers.get(x86::rip)) {
        for (const auto& row : base_registers) known(row.base) = registers.get(row.number);
        known(OrcBase::sp) = registers.get(x86::rsp);
    }

    Backtrace run() && {
        if (!ip_) {
            trace_.broken = "its program counter is not known";
            return std::move(trace_);
        }
        do {
            trace_.frames.push_back({VirtualAddress{*ip_}, interrupted_});
        } while (step());
        return std::move(trace_);
    }

private:
    std::optional<std::uint64_t>& known(OrcBase base) {
        return registers_.at(static_cast<std::size_t>(base));
    }

    bool broken(std::string why) {
        trace_.broken = std::move(why);
        return false;
    }

    bool step() {
        const bool in_user_mode = interrupted_ && *ip_ != 0 && (*ip_ & kernel_half) == 0;
        if (in_user_mode) return false;
        const auto* rule = &null_call;
        if (!interrupted_ || *ip_ != 0) rule = (*rules_)(VirtualAddress{*ip_ - (interrupted_ ? 0 : 1)});
        if (rule == nullptr) {
            return broken("no unwind table tells of " + hex(*ip_) +
                          ": it was generated, or is no code, or of a module that has none");
        }
        switch (rule->type) {
            case OrcType::end_of_stack: return false;
            case OrcType::undefined: return broken("the unwind table does not know the code at " + hex(*ip_));
            case OrcType::call: return step_call(*rule);
            case OrcType::regs:
            case OrcType::regs_partial: return step_registers(*rule);
        }
        return false;
    }

    std::optional<std::uint64_t> word(std::uint64_t address) {
        if ((address & kernel_half) == 0) return std::nullopt;
        const auto value = space_->read_value<std::uint64_t>(VirtualAddress{address});
        return value ? std::optional{*value} : std::nullopt;
    }

    // A sum that is not known if one of its parts is not.
    static std::optional<std::uint64_t> plus(std::optional<std::uint64_t> value, std::int64_t offset) {
        return value ? std::optional{*value + static_cast<std::uint64_t>(offset)} : std::nullopt;
    }
    std::optional<std::uint64_t> at(std::optional<std::uint64_t> address) {
        return address ? word(*address) : std::nullopt;
    }

    // The caller's stack pointer, or where registers were saved.
    std::optional<std::uint64_t> stack_of(const OrcRule& rule) {
        switch (rule.sp) {
            case OrcBase::sp_indirect:
                if (rule.type == OrcType::call) return plus(at(known(OrcBase::sp)), rule.sp_offset);
                return at(plus(known(OrcBase::sp), rule.sp_offset));
            case OrcBase::bp_indirect: return at(plus(known(OrcBase::bp), rule.sp_offset));
            default: return plus(known(rule.sp), rule.sp_offset);
        }
    }

    bool step_call(const OrcRule& rule) {
        const auto stack = stack_of(rule);
        const auto caller = at(plus(stack, -8));
        if (!caller) {
            return broken("where " + hex(*ip_) + " returns to cannot be read" +
                          (stack ? " at " + hex(*stack - 8) : ": a register that tells is not known"));
        }
        if (rule.bp == OrcBase::previous_sp) known(OrcBase::bp) = at(plus(stack, rule.bp_offset));
        if (rule.bp == OrcBase::bp) known(OrcBase::bp) = at(plus(known(OrcBase::bp), rule.bp_offset));
        // Where a function saved the others is not told.
        for (const auto& row : base_registers) {
            if (row.base != OrcBase::bp) known(row.base).reset();
        }
        return go_to(*caller, *stack, false);
    }

    bool step_registers(const OrcRule& rule) {
        const auto saved = stack_of(rule);
        if (!saved || (*saved & kernel_half) == 0) {
            return broken("the registers that " + hex(*ip_) + " saved cannot be found");
        }
        const bool whole = rule.type == OrcType::regs;
        const VirtualAddress frame_at{*saved + (whole ? iret_in_pt_regs : 0)};
        const auto frame = space_->read_value<IretFrame>(frame_at);
        if (!frame) return broken("saved registers: " + frame.error().message);
        // From user mode; or a kernel thread, which has nothing where others have the registers of their
        // user.
        if ((frame->cs & privilege_level) != 0 || (frame->cs == 0 && frame->ip == 0)) return false;
        for (const auto& row : base_registers) {
            if (whole) known(row.base) = word(*saved + row.saved);
        }
        return go_to(frame->ip, frame->sp, true);
    }

    bool go_to(std::uint64_t ip, std::uint64_t stack, bool interrupted) {
        ip_ = ip;
        known(OrcBase::sp) = stack;
        interrupted_ = interrupted;
        if (!been_.insert({ip, stack}).second)
            return broken("the stack goes round to " + hex(stack) + " again");
        if (trace_.frames.size() >= Unwinder::max_frames) {
            return broken("more than " + std::to_string(Unwinder::max_frames) + " frames");
        }
        return true;
    }

    const Unwinder::Rules* rules_;
    AddressSpace* space_;
    std::optional<std::uint64_t> ip_;
    bool interrupted_ = true;
    std::array<std::optional<std::uint64_t>, base_kinds> registers_;  // by OrcBase
    std::set<std::pair<std::uint64_t, std::uint64_t>> been_;
    Backtrace trace_;
};

}  // namespace

Backtrace Unwinder::unwind(const RegisterSet& registers) const {
    return Unwinding{rules_, *space_, registers}.run();
}

}  // namespace exo::os
