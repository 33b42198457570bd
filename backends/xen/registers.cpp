#include "backends/xen/registers.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>

#include "backends/arch/register_fields.h"
#include "backends/arch/x86_64.h"

namespace exo::xen {
namespace {

using namespace x86;

#define EXO_USER(number, member)                                                               \
    Field {                                                                                    \
        number, offsetof(vcpu_guest_context_t, user_regs) + offsetof(cpu_user_regs_t, member), \
            sizeof(cpu_user_regs_t::member)                                                    \
    }

constexpr auto general_fields = std::to_array<Field>({
    EXO_USER(rax, rax),
    EXO_USER(rbx, rbx),
    EXO_USER(rcx, rcx),
    EXO_USER(rdx, rdx),
    EXO_USER(rsi, rsi),
    EXO_USER(rdi, rdi),
    EXO_USER(rbp, rbp),
    EXO_USER(rsp, rsp),
    EXO_USER(r8, r8),
    EXO_USER(r9, r9),
    EXO_USER(r10, r10),
    EXO_USER(r11, r11),
    EXO_USER(r12, r12),
    EXO_USER(r13, r13),
    EXO_USER(r14, r14),
    EXO_USER(r15, r15),
    EXO_USER(rip, rip),
    EXO_USER(eflags, rflags),
});

// The same of a PV guest alone: an HVM guest's are elsewhere, and these are ignored.
constexpr auto pv_fields = std::to_array<Field>({
    EXO_USER(ss, ss),
    EXO_USER(ds, ds),
    EXO_USER(es, es),
    EXO_USER(fs, fs),
    EXO_USER(gs, gs),
    EXO_FIELD(vcpu_guest_context_t, fs_base, fs_base),
});

#define EXO_CPU(number, member) EXO_FIELD(hvm_hw_cpu, number, member)
constexpr auto hvm_fields = std::to_array<Field>({
    EXO_CPU(rax, rax),
    EXO_CPU(rbx, rbx),
    EXO_CPU(rcx, rcx),
    EXO_CPU(rdx, rdx),
    EXO_CPU(rsi, rsi),
    EXO_CPU(rdi, rdi),
    EXO_CPU(rbp, rbp),
    EXO_CPU(rsp, rsp),
    EXO_CPU(r8, r8),
    EXO_CPU(r9, r9),
    EXO_CPU(r10, r10),
    EXO_CPU(r11, r11),
    EXO_CPU(r12, r12),
    EXO_CPU(r13, r13),
    EXO_CPU(r14, r14),
    EXO_CPU(r15, r15),
    EXO_CPU(rip, rip),
    EXO_CPU(eflags, rflags),
    EXO_CPU(cs, cs_sel),
    EXO_CPU(ss, ss_sel),
    EXO_CPU(ds, ds_sel),
    EXO_CPU(es, es_sel),
    EXO_CPU(fs, fs_sel),
    EXO_CPU(gs, gs_sel),
    EXO_CPU(tr_selector, tr_sel),
    EXO_CPU(ldt_selector, ldtr_sel),
    EXO_CPU(fs_base, fs_base),
    EXO_CPU(gs_base, gs_base),
    EXO_CPU(k_gs_base, shadow_gs),
    EXO_CPU(ss_base, ss_base),
    EXO_CPU(ds_base, ds_base),
    EXO_CPU(es_base, es_base),
    EXO_CPU(cs_base, cs_base),
    EXO_CPU(tr_base, tr_base),
    EXO_CPU(gdt_base, gdtr_base),
    EXO_CPU(idt_base, idtr_base),
    EXO_CPU(cr0, cr0),
    EXO_CPU(cr2, cr2),
    EXO_CPU(cr3, cr3),
    EXO_CPU(cr4, cr4),
    EXO_CPU(efer, msr_efer),
});

// Intel SDM vol. 4, table 2-2.
struct MsrField {
    std::uint32_t number;
    std::uint64_t hvm_hw_cpu::* value;
};
constexpr auto msr_fields = std::to_array<MsrField>({
    {0x174, &hvm_hw_cpu::sysenter_cs},
    {0x175, &hvm_hw_cpu::sysenter_esp},
    {0x176, &hvm_hw_cpu::sysenter_eip},
    {0xc0000080, &hvm_hw_cpu::msr_efer},
    {0xc0000081, &hvm_hw_cpu::msr_star},
    {0xc0000082, &hvm_hw_cpu::msr_lstar},
    {0xc0000083, &hvm_hw_cpu::msr_cstar},
    {0xc0000084, &hvm_hw_cpu::msr_syscall_mask},
    {0xc0000100, &hvm_hw_cpu::fs_base},
    {0xc0000101, &hvm_hw_cpu::gs_base},
    {0xc0000102, &hvm_hw_cpu::shadow_gs},
    {0xc0000103, &hvm_hw_cpu::msr_tsc_aux},
});

constexpr std::uint64_t ring = 3;
// A PV guest is in 64-bit mode with PAE's entries, whatever it has not been shown of that (xen/arch/x86/pv).
constexpr std::uint64_t pv_efer = 1U << 0 | 1U << 8 | efer_lma | 1U << 11;  // SCE, LME, LMA, NXE

}  // namespace

bool is_general(RegisterNumber number) { return field_of(general_fields, number) != nullptr; }

bool put_into_user_regs(vcpu_guest_context_t& context, const RegisterSet& values, RegisterNumber number) {
    return put_into(general_fields, writable_bytes_of(context), values, number);
}

void fill_from_hvm(RegisterSet& registers, const hvm_hw_cpu& cpu) {
    fill_from(registers, hvm_fields, bytes_of(cpu));
}

bool put_into_hvm(hvm_hw_cpu& cpu, const RegisterSet& values, RegisterNumber number) {
    return put_into(hvm_fields, writable_bytes_of(cpu), values, number);
}

void fill_as_after_init(RegisterSet& registers) {
    hvm_hw_cpu cpu{};
    cpu.rip = 0xfff0;
    cpu.rflags = 2;
    cpu.cs_sel = 0xf000;
    cpu.cs_base = 0xffff0000;
    cpu.cr0 = 0x60000010;
    fill_from_hvm(registers, cpu);
}

std::optional<std::uint64_t> msr_of(const hvm_hw_cpu& cpu, std::uint32_t number) {
    const auto row = std::ranges::find(msr_fields, number, &MsrField::number);
    if (row == msr_fields.end()) return std::nullopt;
    return cpu.*row->value;
}

void fill_from_pv(RegisterSet& registers, const vcpu_guest_context_t& context) {
    fill_from(registers, general_fields, bytes_of(context));
    fill_from(registers, pv_fields, bytes_of(context));
    const bool kernel = (context.flags & VGCF_in_kernel) != 0;
    registers.set(cs, kernel ? context.user_regs.cs & ~ring : context.user_regs.cs);
    registers.set(gs_base, kernel ? context.gs_base_kernel : context.gs_base_user);
    registers.set(k_gs_base, kernel ? context.gs_base_user : context.gs_base_kernel);
    registers.set(cr0, context.ctrlreg[0] | cr0_pg | cr0_pe);
    // In both modes the kernel's tables, which have the user half too (arch/x86/xen/mmu_pv.c, xen_pgd_pin()).
    registers.set(cr3, context.ctrlreg[3]);
    registers.set(cr4, context.ctrlreg[4] | cr4_pae);
    registers.set(efer, pv_efer);
}

bool put_into_pv(vcpu_guest_context_t& context, const RegisterSet& values, RegisterNumber number) {
    const bool kernel = (context.flags & VGCF_in_kernel) != 0;
    const auto value = values.get(number).value_or(0);
    if (number == cs) {
        context.user_regs.cs = static_cast<std::uint16_t>(value | ring);
    } else if (number == gs_base) {
        (kernel ? context.gs_base_kernel : context.gs_base_user) = value;
    } else if (number == k_gs_base) {
        (kernel ? context.gs_base_user : context.gs_base_kernel) = value;
    } else {
        return put_into(general_fields, writable_bytes_of(context), values, number) ||
               put_into(pv_fields, writable_bytes_of(context), values, number);
    }
    return true;
}

x86::XsaveArea as_xsave_area(const void* fxsave, bool used) {
    x86::XsaveArea area(x86::least_xsave_size);
    if (used) {
        std::memcpy(area.data(), fxsave, x86::fxsave_size);
        return area;
    }
    // Intel SDM vol. 1, 13.6: x87 and SSE after XRSTOR of nothing.
    constexpr std::uint16_t initial_fctrl = 0x37f;
    constexpr std::uint32_t initial_mxcsr = 0x1f80;
    std::memcpy(area.data(), &initial_fctrl, sizeof initial_fctrl);
    std::memcpy(area.data() + 24, &initial_mxcsr, sizeof initial_mxcsr);
    return area;
}

}  // namespace exo::xen
