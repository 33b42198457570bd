#include "backends/kvm/registers.h"

#include <array>
#include <cstddef>
#include <cstdint>

#include "backends/arch/register_fields.h"
#include "backends/arch/x86_64.h"

namespace exo::kvm {
namespace {

using namespace x86;

constexpr auto regs_fields = std::to_array<Field>({
    EXO_FIELD(kvm_regs, rax, rax),
    EXO_FIELD(kvm_regs, rbx, rbx),
    EXO_FIELD(kvm_regs, rcx, rcx),
    EXO_FIELD(kvm_regs, rdx, rdx),
    EXO_FIELD(kvm_regs, rsi, rsi),
    EXO_FIELD(kvm_regs, rdi, rdi),
    EXO_FIELD(kvm_regs, rbp, rbp),
    EXO_FIELD(kvm_regs, rsp, rsp),
    EXO_FIELD(kvm_regs, r8, r8),
    EXO_FIELD(kvm_regs, r9, r9),
    EXO_FIELD(kvm_regs, r10, r10),
    EXO_FIELD(kvm_regs, r11, r11),
    EXO_FIELD(kvm_regs, r12, r12),
    EXO_FIELD(kvm_regs, r13, r13),
    EXO_FIELD(kvm_regs, r14, r14),
    EXO_FIELD(kvm_regs, r15, r15),
    EXO_FIELD(kvm_regs, rip, rip),
    EXO_FIELD(kvm_regs, eflags, rflags),
});

#define EXO_SEGMENT(number, segment) \
    Field { number, offsetof(kvm_sregs, segment) + offsetof(kvm_segment, selector), sizeof(std::uint16_t) }
#define EXO_SEGMENT_BASE(number, segment) \
    Field { number, offsetof(kvm_sregs, segment) + offsetof(kvm_segment, base), sizeof(std::uint64_t) }
#define EXO_TABLE_BASE(number, table) \
    Field { number, offsetof(kvm_sregs, table) + offsetof(kvm_dtable, base), sizeof(std::uint64_t) }

constexpr auto sregs_fields = std::to_array<Field>({
    EXO_SEGMENT(cs, cs),
    EXO_SEGMENT(ss, ss),
    EXO_SEGMENT(ds, ds),
    EXO_SEGMENT(es, es),
    EXO_SEGMENT(fs, fs),
    EXO_SEGMENT(gs, gs),
    EXO_SEGMENT(tr_selector, tr),
    EXO_SEGMENT(ldt_selector, ldt),
    EXO_SEGMENT_BASE(fs_base, fs),
    EXO_SEGMENT_BASE(gs_base, gs),
    EXO_SEGMENT_BASE(ss_base, ss),
    EXO_SEGMENT_BASE(ds_base, ds),
    EXO_SEGMENT_BASE(es_base, es),
    EXO_SEGMENT_BASE(cs_base, cs),
    EXO_SEGMENT_BASE(tr_base, tr),
    EXO_TABLE_BASE(gdt_base, gdt),
    EXO_TABLE_BASE(idt_base, idt),
    EXO_FIELD(kvm_sregs, cr0, cr0),
    EXO_FIELD(kvm_sregs, cr2, cr2),
    EXO_FIELD(kvm_sregs, cr3, cr3),
    EXO_FIELD(kvm_sregs, cr4, cr4),
    EXO_FIELD(kvm_sregs, cr8, cr8),
    EXO_FIELD(kvm_sregs, efer, efer),
});

}  // namespace

Holder holder_of(RegisterNumber number) {
    if (number == k_gs_base) return Holder::msr;
    if (is_in_xsave(number)) return Holder::xsave;
    if (field_of(regs_fields, number) != nullptr) return Holder::regs;
    return field_of(sregs_fields, number) != nullptr ? Holder::sregs : Holder::none;
}

void fill_from_regs(RegisterSet& registers, const kvm_regs& regs) {
    fill_from(registers, regs_fields, bytes_of(regs));
}

void fill_from_sregs(RegisterSet& registers, const kvm_sregs& sregs) {
    fill_from(registers, sregs_fields, bytes_of(sregs));
}

bool put_into_regs(kvm_regs& regs, const RegisterSet& values, RegisterNumber number) {
    return put_into(regs_fields, writable_bytes_of(regs), values, number);
}

bool put_into_sregs(kvm_sregs& sregs, const RegisterSet& values, RegisterNumber number) {
    return put_into(sregs_fields, writable_bytes_of(sregs), values, number);
}

}  // namespace exo::kvm
