#include "os-awareness/linux/user_registers.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "backends/arch/x86_64.h"
#include "os-awareness/linux/constants.h"

namespace exo::os {
namespace {

using Kind = RegisterPlace::Kind;

// struct pt_regs, in order (arch/x86/include/asm/ptrace.h; part of the user's ABI by PTRACE_GETREGS).
constexpr auto slots = std::to_array<RegisterNumber>(
    {x86::r15, x86::r14,      x86::r13, x86::r12, x86::rbp,    x86::rbx, x86::r11,
     x86::r10, x86::r9,       x86::r8,  x86::rax, x86::rcx,    x86::rdx, x86::rsi,
     x86::rdi, x86::orig_rax, x86::rip, x86::cs,  x86::eflags, x86::rsp, x86::ss});
constexpr std::size_t slot_ip = 16, slot_cs = 17, slot_ss = 20;
constexpr std::uint64_t frame_size = slots.size() * 8;
// Above it up to the end of the stack: TOP_OF_KERNEL_STACK_PADDING, 16 where FRED is built in (6.9). Which of
// them it is, is seen in the selectors.
constexpr std::array<std::uint64_t, 2> paddings{0, 16};

// GDT selectors of user mode (arch/x86/include/asm/segment.h); cs is that of 32-bit code in a 32-bit program.
constexpr std::uint64_t user_cs = 0x33, user32_cs = 0x23, user_ds = 0x2b, selector = 0xffff;
// struct x86_hw_tss: sp0, to which the CPU switches when it comes from user mode (Intel SDM vol. 3A, 8.7).
constexpr std::uint64_t tss_sp0 = 4, entry_stack_size = 4096, hardware_frame = 40;

constexpr std::uint64_t no_system_call = ~std::uint64_t{0};

void take_live(UserRegisters& out, RegisterNumber number, const RegisterSet& vcpu, RegisterNumber from) {
    if (!vcpu.available(from)) return;
    out.values.set_bytes(number, vcpu.bytes(from));
    out.places.at(number) = {.kind = Kind::vcpu, .number = from};
}

void take_live(UserRegisters& out, RegisterNumber first, RegisterNumber last, const RegisterSet& vcpu) {
    for (RegisterNumber number = first; number <= last; ++number) take_live(out, number, vcpu, number);
}

// SYSCALL leaves rip in rcx and the flags in r11, and SYSRET takes them from there; rsp is the user's until
// the kernel's entry code has changed it, and again before SYSRET (arch/x86/entry/entry_64.S).
bool at_system_call_border(const RegisterSet& vcpu) {
    const auto rsp = vcpu.get(x86::rsp).value_or(kernel_half);
    return (rsp & kernel_half) == 0;
}

// With KPTI, the entry code uses rsp for what it writes to CR3, for some instructions.
bool is_page_table(std::uint64_t rsp, const RegisterSet& vcpu) {
    const auto cr3 = vcpu.get(x86::cr3).value_or(0);
    return ((rsp ^ cr3) & cr3_address & ~kpti_user_bit) == 0;
}

void take_system_call(UserRegisters& out, const RegisterSet& vcpu) {
    take_live(out, x86::rax, x86::r15, vcpu);
    take_live(out, x86::rip, vcpu, x86::rcx);
    take_live(out, x86::eflags, vcpu, x86::r11);
    out.values.set(x86::cs, user_cs);
    out.values.set(x86::ss, user_ds);
    if (is_page_table(vcpu.get(x86::rsp).value_or(0), vcpu)) out.values.set_unavailable(x86::rsp);
}

void take_memory(UserRegisters& out, RegisterNumber number, VirtualAddress address, std::uint64_t value) {
    const bool narrow = number == x86::cs || number == x86::ss;  // FRED has more in the rest of the slot
    out.values.set(number, narrow ? value & selector : value);
    out.places.at(number) = {.kind = Kind::memory, .address = address, .size = narrow ? 2U : 8U};
}

}  // namespace

bool uses_xsave(std::span<const RegisterSet> vcpus) {
    return std::ranges::any_of(
        vcpus, [](const RegisterSet& r) { return (r.get(x86::cr4).value_or(0) & x86::cr4_osxsave) != 0; });
}

std::optional<std::uint64_t> fpu_owner_on(std::uint32_t cpu, const PerCpu& per_cpu, AddressSpace& kernel) {
    const auto variable = per_cpu.variable("fpu_fpregs_owner_ctx");
    const auto offset = per_cpu.offset_of(cpu);
    if (!variable || !offset) return std::nullopt;
    const auto owner = kernel.read_value<std::uint64_t>(*variable + *offset);
    return owner ? std::optional{*owner} : std::nullopt;
}

UserRegisterReader::UserRegisterReader(AddressSpace& kernel, const Btf* btf, const StructLayout& layout)
    : kernel_(&kernel), layout_(&layout), fpu_(kernel, btf) {
    if (btf == nullptr) return;
    const auto find = [&](const char* path) {
        const auto found = field_in(*btf, "task_struct", path);
        return found && found->size <= 8 ? *found : Field{};
    };
    ds_ = find("thread.ds");
    es_ = find("thread.es");
    fs_ = find("thread.fsindex");
    gs_ = find("thread.gsindex");
}

// The words that an exception pushes and those of pt_regs are the same, in one order.
struct UserRegisterReader::Frame {
    std::array<std::uint64_t, slots.size()> words{};
    VirtualAddress address{};

    [[nodiscard]] bool of_user_mode() const {
        const auto cs = words.at(slot_cs) & selector;
        return (cs == user_cs || cs == user32_cs) && (words.at(slot_ss) & selector) == user_ds &&
               (words.at(slot_ip) & kernel_half) == 0;
    }
    [[nodiscard]] VirtualAddress at(std::size_t slot) const { return address + 8 * slot; }
    void take(std::size_t slot, UserRegisters& out) const {
        take_memory(out, slots.at(slot), at(slot), words.at(slot));
    }
};

Result<void> UserRegisterReader::read_frame(const TaskRecord& task, const Where& where, UserRegisters& out) {
    const auto none = [&](const std::string& why) {
        return fail(Errc::bad_data, "task " + std::to_string(task.tid) + " (" + task.comm + ") " + why);
    };
    const RegisterSet* vcpu = where.vcpu;
    const std::uint64_t rsp = vcpu != nullptr ? vcpu->get(x86::rsp).value_or(0) : 0;
    Frame frame;
    // The CPU's own frame, before or after pt_regs was made of it: on the stack that it enters the kernel by.
    const auto tss = vcpu != nullptr ? vcpu->get(x86::tr_base) : std::nullopt;
    const auto sp0 = tss ? kernel_->read_value<std::uint64_t>(VirtualAddress{*tss + tss_sp0}).value_or(0) : 0;
    if (sp0 > rsp && sp0 - rsp <= entry_stack_size &&
        (rsp <= task.stack || rsp - task.stack > where.stack_size)) {
        frame.address = VirtualAddress{sp0 - frame_size};
        CHECK_OK(kernel_->read(frame.at(slot_ip),
                               std::as_writable_bytes(std::span{frame.words}.subspan(slot_ip))));
        if (!frame.of_user_mode() || sp0 - rsp < hardware_frame) return none("is on its way into the kernel");
        for (std::size_t slot = slot_ip; slot < slots.size(); ++slot) frame.take(slot, out);
        // Nothing or an error code is pushed besides: nothing of the user's has been changed.
        if (sp0 - rsp <= hardware_frame + 8) {
            for (std::size_t slot = 0; slot < slot_ip; ++slot) {
                if (slots.at(slot) != x86::orig_rax) take_live(out, slots.at(slot), *vcpu, slots.at(slot));
            }
            if (sp0 - rsp != hardware_frame)
                out.values.set_unavailable(x86::rdi);  // on its way out it is there
            out.values.set(x86::orig_rax, no_system_call);
        }
        return {};
    }
    if (task.stack == 0) return none("has exited, and its kernel stack is freed");
    for (const auto padding : paddings) {
        frame.address = VirtualAddress{task.stack + where.stack_size - padding - frame_size};
        CHECK_OK(kernel_->read(frame.address, std::as_writable_bytes(std::span{frame.words})));
        if (frame.of_user_mode()) break;
    }
    if (!frame.of_user_mode()) return none("has no registers of user mode on its stack");
    const bool own_stack = rsp > task.stack && rsp - task.stack <= where.stack_size;
    for (std::size_t slot = 0; slot < slots.size(); ++slot) {
        // While the frame is made, and while it is taken off again, the rest of it is still in the registers.
        const bool live = own_stack && raw(frame.at(slot)) < rsp;
        if (!live) {
            frame.take(slot, out);
        } else if (slot < slot_ip && slots.at(slot) != x86::orig_rax) {
            take_live(out, slots.at(slot), *vcpu, slots.at(slot));
        }
    }
    return {};
}

void UserRegisterReader::read_segments(const TaskRecord& task, const Where& where, UserRegisters& out) const {
    if (where.vcpu != nullptr) {
        take_live(out, x86::ds, x86::gs, *where.vcpu);
        take_live(out, x86::fs_base, *where.vcpu, x86::fs_base);
        // The kernel's own is in its half; until swapgs the user's is still in place.
        const bool swapped = (where.vcpu->get(x86::gs_base).value_or(0) & kernel_half) != 0;
        take_live(out, x86::gs_base, *where.vcpu, swapped ? x86::k_gs_base : x86::gs_base);
        return;
    }
    const auto from_task = [&](RegisterNumber number, const Field& field) {
        if (!field) return;
        std::array<std::byte, 8> bytes{};
        const auto value = MutableBytes{bytes}.first(field.size);
        const VirtualAddress address{task.address + field.offset};
        if (!kernel_->read(address, value)) return;
        out.values.set_bytes(number, value);
        out.places.at(number) = {.kind = Kind::memory, .address = address, .size = field.size};
    };
    from_task(x86::ds, ds_);
    from_task(x86::es, es_);
    from_task(x86::fs, fs_);
    from_task(x86::gs, gs_);
    from_task(x86::fs_base, layout_->task.fsbase);
    from_task(x86::gs_base, layout_->task.gsbase);
}

// Whose values a CPU's registers have is said by fpu_fpregs_owner_ctx. While a task runs in the kernel they
// may be of somebody else (kernel_fpu_begin()); the saved ones are good then.
void UserRegisterReader::read_fpu(const TaskRecord& task, const Where& where, UserRegisters& out) const {
    const auto own = fpu_.address_of(task.address);
    if (where.vcpu != nullptr) {
        if (!own || !where.fpu_owner) return;  // nobody can tell
        if (*where.fpu_owner == raw(*own) && fpu_.was_last_on(task.address, task.cpu)) {
            take_live(out, x86::st0, x86::mxcsr, *where.vcpu);
            return take_live(out, x86::ymm0h, x86::ymm15h, *where.vcpu);
        }
    }
    fpu_.read(task.address, where.xsave, out);
}

Result<UserRegisters> UserRegisterReader::read(const TaskRecord& task, const Where& where) {
    if (task.kernel_thread())
        return fail(Errc::bad_data, task.comm + " is a kernel thread: it has no user mode");
    UserRegisters out{x86::process_layout()};
    if (where.vcpu != nullptr && x86::in_user_mode(*where.vcpu)) {
        take_live(out, x86::rax, x86::gs_base, *where.vcpu);
        out.values.set(x86::orig_rax, no_system_call);
        return out;
    }
    if (where.vcpu != nullptr && at_system_call_border(*where.vcpu)) {
        take_system_call(out, *where.vcpu);
    } else {
        CHECK_OK(read_frame(task, where, out));
    }
    read_segments(task, where, out);
    read_fpu(task, where, out);
    return out;
}

}  // namespace exo::os
