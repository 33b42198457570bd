// What debug events KVM on this host reports: a guest of a few instructions, run under KVM_SET_GUEST_DEBUG in
// each of its ways, and each expected back as KVM_EXIT_DEBUG (Documentation/virt/kvm/api.rst, 4.87). Prints a
// line for each: "NAME yes" or "NAME no: WHY". Exit status 0 when all were reported, 1 when one was not.
//
// An emulated host is not a real one: this tells a test what it may expect there.
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "tests/lab/vmm/cpu.h"
#include "tests/lab/vmm/fail.h"
#include "tests/lab/vmm/memory.h"

namespace {

using namespace vmm;

constexpr uint64_t program_address = 0x100000, stack_address = 0x60000, variable_address = 0x8000;

// The guest, and where its instructions are in it. It ends at hlt.
constexpr uint8_t program[] = {
    0x90,                                      // nop
    0xcc,                                      // int3
    0x90,                                      // nop
    0xff, 0x04, 0x25, 0x00, 0x80, 0x00, 0x00,  // incl 0x8000
    0x90,                                      // nop
    0xf4,                                      // hlt
};
constexpr uint64_t at_int3 = program_address + 1, past_int3 = program_address + 2,
                   past_write = program_address + 10;

// DR6, DR7: Intel SDM, volume 3, 18.2.3 and 18.2.4.
constexpr uint64_t dr6_first = 1, dr6_step = 1 << 14;
constexpr uint64_t dr7_fixed = 0x400, dr7_first_enabled = 2;  // globally
constexpr uint64_t dr7_first_write_4 = uint64_t{0xd} << 16;

class Guest {
public:
    explicit Guest(int kvm_fd)
        : fd_(control(kvm_fd, KVM_CREATE_VM, 0UL, "KVM_CREATE_VM")),
          memory_(machine_fd(fd_), MachineOptions{}) {
        vcpu_ = control(fd_, KVM_CREATE_VCPU, 0UL, "KVM_CREATE_VCPU");
        auto size =
            static_cast<size_t>(control(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0UL, "KVM_GET_VCPU_MMAP_SIZE"));
        void* shared = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_, 0);
        if (shared == MAP_FAILED) fail_errno("mapping of a vCPU");
        run_ = static_cast<kvm_run*>(shared);
        set_cpuid(kvm_fd, vcpu_, 0);
        write_long_mode_tables(memory_, 4);
        memory_.write(program_address, program, sizeof program);
        start_at(program_address);
    }

    void start_at(uint64_t address) const {
        start_long_mode(vcpu_, {.instruction = address, .stack = stack_address});
    }

    // What the next KVM_RUN ends with; null when the request is refused.
    const kvm_run* run(uint32_t flags, uint64_t dr0 = 0, uint64_t dr7 = 0) const {
        kvm_guest_debug debug{};
        debug.control = flags;
        debug.arch.debugreg[0] = dr0;
        debug.arch.debugreg[7] = dr7;
        if (ioctl(vcpu_, KVM_SET_GUEST_DEBUG, &debug) < 0) return nullptr;
        while (ioctl(vcpu_, KVM_RUN, 0) < 0)
            if (errno != EINTR) fail_errno("KVM_RUN");
        return run_;
    }

private:
    // Intel's needs them before there is a vCPU.
    static int machine_fd(int fd) {
        control(fd, KVM_SET_TSS_ADDR, 0xfeffd000UL, "KVM_SET_TSS_ADDR");
        return fd;
    }

    int fd_;
    GuestMemory memory_;
    int vcpu_ = -1;
    kvm_run* run_ = nullptr;
};

// "" when `run` is a debug exit with that exception, address and bits of DR6; else what it is.
std::string difference(const kvm_run* run, uint32_t exception, uint64_t address, uint64_t dr6) {
    if (!run) return std::string("KVM_SET_GUEST_DEBUG: ") + std::strerror(errno);
    if (run->exit_reason != KVM_EXIT_DEBUG) return "exit reason " + std::to_string(run->exit_reason);
    const kvm_debug_exit_arch& seen = run->debug.arch;
    if (seen.exception == exception && seen.pc == address && (seen.dr6 & dr6) == dr6) return "";
    char line[160];
    std::snprintf(line, sizeof line, "exception %u at 0x%llx with DR6 0x%llx", seen.exception, seen.pc,
                  seen.dr6);
    return line;
}

bool tell(const char* name, const std::string& difference) {
    std::printf("%s %s%s\n", name, difference.empty() ? "yes" : "no: ", difference.c_str());
    std::fflush(stdout);
    return difference.empty();
}

std::string check_steps(int kvm_fd, uint32_t more_flags) {
    constexpr uint32_t flags = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
    Guest guest(kvm_fd);
    guest.start_at(past_int3);
    for (uint64_t address : {past_int3 + 1, past_write, past_write + 1}) {
        std::string difference_seen = difference(guest.run(flags | more_flags), 1, address, dr6_step);
        if (!difference_seen.empty()) return difference_seen;
    }
    return "";
}

}  // namespace

int main() {
    int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm_fd < 0) fail_errno("/dev/kvm");
    constexpr uint32_t software = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP;
    constexpr uint32_t hardware = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
    constexpr uint64_t execution = dr7_fixed | dr7_first_enabled, write = execution | dr7_first_write_4;
    bool all = true;
    all &= tell("software breakpoint", difference(Guest(kvm_fd).run(software), 3, at_int3, 0));
    Guest second(kvm_fd);
    second.start_at(past_int3);
    all &= tell("hardware breakpoint",
                difference(second.run(hardware, past_int3 + 1, execution), 1, past_int3 + 1, dr6_first));
    Guest third(kvm_fd);
    third.start_at(past_int3);
    all &= tell("watchpoint",
                difference(third.run(hardware, variable_address, write), 1, past_write, dr6_first));
    all &= tell("single step", check_steps(kvm_fd, 0));
    all &= tell("single step, interrupts blocked", check_steps(kvm_fd, KVM_GUESTDBG_BLOCKIRQ));
    return all ? 0 : 1;
}
