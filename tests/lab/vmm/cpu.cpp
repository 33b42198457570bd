#include "tests/lab/vmm/cpu.h"

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <vector>

#include "tests/lab/vmm/fail.h"

namespace vmm {
namespace {

// Guest-physical addresses of what is built there.
constexpr uint64_t descriptor_table = 0x500, top_table = 0x10000, second_table = 0x11000,
                   directories = 0x12000;
constexpr unsigned directories_most = 30;  // up to 0x30000

constexpr uint16_t code_selector = 0x10, data_selector = 0x18;

// Intel SDM, volume 3: control registers (2.5), EFER (2.2.1), page table entries (table 4-15 and on).
constexpr uint64_t cr0_protected = 1, cr0_monitor = 1 << 1, cr0_extension_type = 1 << 4,
                   cr0_numeric_error = 1 << 5, cr0_paging = uint64_t{1} << 31;
constexpr uint64_t cr4_physical_extension = 1 << 5, cr4_fxsave = 1 << 9, cr4_simd_exceptions = 1 << 10;
constexpr uint64_t efer_long_enable = 1 << 8, efer_long_active = 1 << 10;
constexpr uint64_t entry_present = 1, entry_writable = 2, entry_large = 1 << 7;

// kvm_cpuid2. The header's own ends in __DECLARE_FLEX_ARRAY, which C++ lays out otherwise than C: an empty
// structure has a byte there. Its size is part of the requests' numbers.
struct CpuidTable {
    static constexpr uint32_t most = 256;
    uint32_t count = most;
    uint32_t padding = 0;
    kvm_cpuid_entry2 entries[most] = {};
};
constexpr uint32_t cpuid_header_size = 8;
static_assert(offsetof(CpuidTable, entries) == cpuid_header_size);
constexpr unsigned long get_supported_cpuid = _IOC(_IOC_READ | _IOC_WRITE, KVMIO, 0x05, cpuid_header_size);
constexpr unsigned long set_cpuid_2 = _IOC(_IOC_WRITE, KVMIO, 0x90, cpuid_header_size);

kvm_segment long_mode_segment(uint16_t selector, bool code) {
    kvm_segment segment{};
    segment.limit = 0xffffffff;
    segment.selector = selector;
    segment.type = code ? 0xb : 0x3;  // accessed; execute and read, or read and write
    segment.present = 1;
    segment.s = 1;
    segment.l = code;
    segment.db = !code;
    segment.g = 1;
    return segment;
}

void start_at(int vcpu_fd, const Start& start) {
    kvm_regs registers{};
    registers.rip = start.instruction;
    registers.rsp = start.stack;
    registers.rdi = start.rdi;
    registers.rsi = start.rsi;
    registers.rflags = 2;
    control(vcpu_fd, KVM_SET_REGS, &registers, "KVM_SET_REGS");
    // Without it all but the first wait for the kernel of the guest to start them.
    kvm_mp_state state{.mp_state = KVM_MP_STATE_RUNNABLE};
    control(vcpu_fd, KVM_SET_MP_STATE, &state, "KVM_SET_MP_STATE");
}

}  // namespace

void set_cpuid(int kvm_fd, int vcpu_fd, unsigned index) {
    auto table = std::make_unique<CpuidTable>();
    control(kvm_fd, get_supported_cpuid, table.get(), "KVM_GET_SUPPORTED_CPUID");
    for (uint32_t number = 0; number < table->count; ++number) {
        kvm_cpuid_entry2& entry = table->entries[number];
        if (entry.function == 1) {
            entry.ebx = (entry.ebx & 0x00ffffff) | index << 24;  // initial APIC id
            entry.ecx |= 1U << 31;                               // a hypervisor is there
        }
        if (entry.function == 0xb || entry.function == 0x1f) entry.edx = index;  // x2APIC id
    }
    control(vcpu_fd, set_cpuid_2, table.get(), "KVM_SET_CPUID2");
}

void write_long_mode_tables(const GuestMemory& memory, unsigned gib) {
    constexpr uint64_t entries = 512, page = 0x1000;
    gib = std::min(gib, directories_most);
    std::vector<uint64_t> top(entries), second(entries), directory(entries);
    top[0] = second_table | entry_present | entry_writable;
    for (uint64_t number = 0; number < gib; ++number) {
        second[number] = (directories + number * page) | entry_present | entry_writable;
        for (uint64_t index = 0; index < entries; ++index)
            directory[index] =
                (number * entries + index) * 2 * mib | entry_present | entry_writable | entry_large;
        memory.write(directories + number * page, directory.data(), page);
    }
    memory.write(top_table, top.data(), page);
    memory.write(second_table, second.data(), page);
    const uint64_t descriptors[] = {0, 0, 0x00af9b000000ffff,
                                    0x00cf93000000ffff};  // as long_mode_segment() has them
    memory.write(descriptor_table, descriptors, sizeof descriptors);
}

void start_long_mode(int vcpu_fd, const Start& start) {
    kvm_sregs special{};
    control(vcpu_fd, KVM_GET_SREGS, &special, "KVM_GET_SREGS");
    special.cs = long_mode_segment(code_selector, true);
    for (kvm_segment* segment : {&special.ds, &special.es, &special.fs, &special.gs, &special.ss})
        *segment = long_mode_segment(data_selector, false);
    special.gdt.base = descriptor_table;
    special.gdt.limit = 4 * sizeof(uint64_t) - 1;
    special.idt = {};
    special.cr0 = cr0_protected | cr0_monitor | cr0_extension_type | cr0_numeric_error | cr0_paging;
    special.cr3 = top_table;
    special.cr4 = cr4_physical_extension | cr4_fxsave | cr4_simd_exceptions;
    special.efer = efer_long_enable | efer_long_active;
    control(vcpu_fd, KVM_SET_SREGS, &special, "KVM_SET_SREGS");
    start_at(vcpu_fd, start);
}

void start_real_mode(int vcpu_fd, uint64_t base, const Start& start) {
    kvm_sregs special{};
    control(vcpu_fd, KVM_GET_SREGS, &special, "KVM_GET_SREGS");
    for (kvm_segment* segment : {&special.cs, &special.ds, &special.es, &special.fs, &special.gs}) {
        segment->base = base;
        segment->selector = static_cast<uint16_t>(base >> 4);
    }
    special.ss.base = 0;
    special.ss.selector = 0;
    control(vcpu_fd, KVM_SET_SREGS, &special, "KVM_SET_SREGS");
    start_at(vcpu_fd, start);
}

}  // namespace vmm
