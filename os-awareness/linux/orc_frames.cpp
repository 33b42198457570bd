#include "os-awareness/linux/orc_frames.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <span>

#include "os-awareness/linux/orc_rules.h"

namespace exo::os {
namespace {

using cfi::Instructions;
using cfi::Register;

struct NamedFunctions {
    std::string_view prefix;
    OrcFunction what;
};

// arch/x86/entry/entry_64.S and entry_64_compat.S. Their parts have names of their own, hence prefixes.
constexpr NamedFunctions named_functions[] = {
    // Entered from user mode only, or the beginning of a task's stack.
    {"entry_SYSCALL_", OrcFunction::root},
    {"entry_SYSENTER_", OrcFunction::root},
    {"entry_INT80_", OrcFunction::root},
    {"ret_from_fork", OrcFunction::root},
    {"syscall_return_via_sysret", OrcFunction::root},
    {"swapgs_restore_regs_and_return_to_usermode", OrcFunction::root},
    // Up to 5.7 (softirq) and from 5.8 to 5.11; C with sp_indirect since.
    {"do_softirq_own_stack", OrcFunction::stack_switch},
    {"asm_call_on_stack", OrcFunction::stack_switch},
    {"asm_call_irq_on_stack", OrcFunction::stack_switch},
    {"asm_call_sysvec_on_stack", OrcFunction::stack_switch},
};

OrcFunction function_named(std::string_view name) {
    const auto* known = std::ranges::find_if(
        named_functions, [&](const NamedFunctions& row) { return name.starts_with(row.prefix); });
    return known == std::end(named_functions) ? OrcFunction::ordinary : known->what;
}

// With 5-level paging (Documentation/arch/x86/x86_64/mm.rst); with 4 levels there is nothing above 1 << 47.
constexpr std::uint64_t user_half_bytes = std::uint64_t{1} << 56;

bool is_code(const Symbol& symbol) {
    return symbol.type == 't' || symbol.type == 'T' || symbol.type == 'w' || symbol.type == 'W';
}

// A rule that holds from an address on.
struct OrcPiece {
    VirtualAddress address{};
    OrcRule rule;
    bool function_begins = false;
    OrcFunction function = OrcFunction::ordinary;  // which begins
};

// Rows and the beginnings of functions, merged in order of address.
class OrcPieces {
public:
    OrcPieces(std::span<const OrcRow> rows, const SymbolTable& symbols) : rows_(rows), symbols_(&symbols) {
        const auto all = symbols.by_address();
        const auto first = std::ranges::lower_bound(all, rows.front().address, {}, &Symbol::address);
        left_ = all.subspan(static_cast<std::size_t>(first - all.begin()));
    }

    std::optional<OrcPiece> next(VirtualAddress end) {
        skip_data();
        const bool symbol_next =
            !left_.empty() && (rows_.empty() || left_.front().address <= rows_.front().address);
        if (!symbol_next && rows_.empty()) return std::nullopt;
        const auto address = symbol_next ? left_.front().address : rows_.front().address;
        if (address >= end) return std::nullopt;
        if (!rows_.empty() && rows_.front().address == address) {
            rule_ = rows_.front().rule;
            rows_ = rows_.subspan(1);
        }
        OrcPiece piece{address, rule_, symbol_next};
        for (; !left_.empty() && left_.front().address == address; left_ = left_.subspan(1)) {
            if (piece.function != OrcFunction::ordinary || !is_code(left_.front())) continue;
            piece.function = function_named(symbols_->name(left_.front()));
        }
        return piece;
    }

private:
    void skip_data() {
        while (!left_.empty() && !is_code(left_.front())) left_ = left_.subspan(1);
    }

    std::span<const OrcRow> rows_;
    const SymbolTable* symbols_;
    std::span<const Symbol> left_;
    OrcRule rule_;
};

}  // namespace

KernelFrames::KernelFrames(std::uint64_t slide, VirtualAddress marks) : slide_(slide), marks_(marks) {
    cies_.call = section_.add_cie(orc_call_frame(), false);
    cies_.regs = section_.add_cie(orc_regs_frame(marks), false);
    cies_.regs_partial = section_.add_cie(orc_regs_partial_frame(marks), false);
    cies_.user = section_.add_cie(orc_user_frame(), false);
    add_mark(0, cies_.user);
    add_mark(1, section_.add_cie(orc_interrupted_mark(), true));
    add_mark(2, section_.add_cie(orc_stack_switch_mark(), true));
}

void KernelFrames::add_mark(std::size_t index, cfi::FrameSection::Cie cie) {
    section_.add_fde(cie, marks_ + unwind_marks.at(index).offset, unwind_mark_bytes, {});
}

void KernelFrames::end_at_user_mode() {
    section_.add_fde(cies_.user, VirtualAddress{0}, user_half_bytes - slide_ % user_half_bytes, {});
}

Result<void> KernelFrames::add(const OrcTable& table, const SymbolTable& symbols, VirtualAddress end) {
    if (table.rows.empty()) return {};
    const auto link_time = [&](VirtualAddress address) { return VirtualAddress{raw(address) - slide_}; };
    const auto cie_of = [&](OrcFrameForm form) {
        if (form == OrcFrameForm::regs) return cies_.regs;
        return form == OrcFrameForm::regs_partial ? cies_.regs_partial : cies_.call;
    };

    OrcPieces pieces{table.rows, symbols};
    OrcRuleWriter writer{marks_};
    VirtualAddress start{};
    VirtualAddress at{};
    std::optional<OrcFrameForm> form;  // of the FDE that is open
    OrcFunction function{};
    const auto close = [&](VirtualAddress stop) {
        if (form && stop > start) {
            section_.add_fde(cie_of(*form), link_time(start), raw(stop) - raw(start), writer.instructions());
        }
    };
    while (const auto piece = pieces.next(end)) {
        if (piece->function_begins) function = piece->function;
        const auto wanted = orc_frame_form(piece->rule, function);
        // Names without code (what is before a function for patching, `__pfx_`) get no FDE of their own.
        if ((piece->function_begins && piece->rule.has_caller()) || form != wanted) {
            close(piece->address);
            if (section_.size() > max_bytes) {
                return fail(Errc::bad_data, "frames of more than " + std::to_string(max_bytes >> 20) +
                                                " MiB: ORC table at " + hex(table.rows.front().address) +
                                                " is cut off at " + hex(piece->address));
            }
            form = wanted;
            start = at = piece->address;
            writer.begin(wanted);
        }
        if (writer.differs(piece->rule, function)) {
            writer.advance(raw(piece->address) - raw(at));
            writer.write(piece->rule, function);
            at = piece->address;
        }
    }
    close(end);
    return {};
}

}  // namespace exo::os
