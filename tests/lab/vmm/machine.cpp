#include "tests/lab/vmm/machine.h"

#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>

#include "tests/lab/vmm/acpi.h"
#include "tests/lab/vmm/cpu.h"
#include "tests/lab/vmm/fail.h"
#include "tests/lab/vmm/load.h"

namespace vmm {
namespace {

// A PC's input/output ports (ISA), and the interrupt lines of its serial ports.
constexpr uint16_t com1 = 0x3f8, com2 = 0x2f8, uart_ports = 8;
constexpr uint16_t clock_data = 0x71;
constexpr uint32_t com1_line = 4, com2_line = 3;

// Three pages that KVM on Intel wants below 4 GiB, outside of RAM (Documentation/virt/kvm/api.rst, 4.29
// and 4.52).
constexpr uint64_t identity_map = 0xfeffc000, task_state = 0xfeffd000;

int make_virtual_machine(int kvm_fd) {
    int fd = control(kvm_fd, KVM_CREATE_VM, 0UL, "KVM_CREATE_VM");
    uint64_t map = identity_map;
    control(fd, KVM_SET_IDENTITY_MAP_ADDR, &map, "KVM_SET_IDENTITY_MAP_ADDR");
    control(fd, KVM_SET_TSS_ADDR, task_state, "KVM_SET_TSS_ADDR");
    control(fd, KVM_CREATE_IRQCHIP, 0UL, "KVM_CREATE_IRQCHIP");
    kvm_pit_config pit{};
    pit.flags = KVM_PIT_SPEAKER_DUMMY;  // port 0x61, which Linux times its clock by
    control(fd, KVM_CREATE_PIT2, &pit, "KVM_CREATE_PIT2");
    return fd;
}

// Ports at which nothing is, but that a kernel waits for.
void read_port(uint16_t port, uint8_t* data, size_t size) {
    // no busy keyboard controller, no clock that is being set for ever, no power event
    bool zero = port == keyboard_controller || port == clock_data ||
                (port >= power_events && port < power_events + 4);
    std::memset(data, zero ? 0 : 0xff, size);
    if (port == power_control && size == sizeof power_control_enabled)
        std::memcpy(data, &power_control_enabled, sizeof power_control_enabled);
}

// How the machine ends by that write; null when it does not.
const char* end_of_machine(uint16_t port, const uint8_t* data, size_t size) {
    if (port == keyboard_controller && *data == keyboard_reset) return "reset by the guest";
    if (port == power_control && size == 2 && (data[1] << 8 & power_control_sleep))
        return "powered off by the guest";
    return nullptr;
}

}  // namespace

Machine::Machine(int kvm_fd, unsigned number, const MachineOptions& options, Gate& gate)
    : fd_(make_virtual_machine(kvm_fd)),
      number_(number),
      gate_(gate),
      memory_(fd_, options),
      locked_(options.locked) {
    for (unsigned index = 0; index < options.vcpus; ++index) make_vcpu(kvm_fd, index);
    serial_ =
        std::make_unique<Uart>(options.serial, [this](bool level) { set_interrupt_line(com1_line, level); });
    if (!options.channel.empty())
        channel_ = std::make_unique<Uart>(options.channel,
                                          [this](bool level) { set_interrupt_line(com2_line, level); });
    std::vector<int> fds;
    for (const Vcpu& vcpu : vcpus_) fds.push_back(vcpu.fd);
    if (options.kernel.empty())
        load_bare(memory_, options, fds);
    else
        load_linux(memory_, options, fds);
}

void Machine::make_vcpu(int kvm_fd, unsigned index) {
    int fd = control(fd_, KVM_CREATE_VCPU, static_cast<unsigned long>(index), "KVM_CREATE_VCPU");
    auto size = static_cast<size_t>(control(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0UL, "KVM_GET_VCPU_MMAP_SIZE"));
    void* shared = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED) fail_errno("mapping of a vCPU");
    set_cpuid(kvm_fd, fd, index);
    vcpus_.push_back({.fd = fd, .run = static_cast<kvm_run*>(shared)});
}

void Machine::set_interrupt_line(uint32_t line, bool level) const {
    kvm_irq_level request{};
    request.irq = line;
    request.level = level;
    control(fd_, KVM_IRQ_LINE, &request, "KVM_IRQ_LINE");
}

void Machine::start(std::atomic<unsigned>* running) {
    running_ = running;
    for (unsigned index = 0; index < vcpus_.size(); ++index) {
        std::thread thread([this, index] { run_vcpu(index); });
        std::string name = "guest" + std::to_string(number_) + ".core" + std::to_string(index);
        pthread_setname_np(thread.native_handle(), name.c_str());
        thread.detach();
    }
}

void Machine::run_vcpu(unsigned index) {
    Vcpu& vcpu = vcpus_[index];
    gate_.enter(vcpu.run);
    do {
        gate_.pass(vcpu.run);
        if (ioctl(vcpu.fd, KVM_RUN, 0) < 0) {
            if (errno != EINTR && errno != EAGAIN) fail_errno("KVM_RUN");
            be_busy(index);
            continue;
        }
        if (!handle_exit(index, vcpu.run)) return;
    } while (!ended_);
}

// A thread that goes on spins, since one that sleeps would be met in a system call. The first vCPU is the
// last to get the lock.
void Machine::be_busy(unsigned index) {
    if (locked_.count() == 0) return;
    const auto spin = [](auto time) {
        const auto until = std::chrono::steady_clock::now() + time;
        while (std::chrono::steady_clock::now() < until) {
        }
    };
    spin((vcpus_.size() - 1 - index) * locked_ / 8);
    const std::lock_guard turn{lock_};
    spin(locked_);
}

// With the address that it was at.
void Machine::fail_vcpu(unsigned index, const char* what, uint64_t number) const {
    kvm_regs registers{};
    ioctl(vcpus_[index].fd, KVM_GET_REGS, &registers);
    char line[200];
    std::snprintf(line, sizeof line, "machine %u, vCPU %u at 0x%llx: %s %llu", number_, index, registers.rip,
                  what, static_cast<unsigned long long>(number));
    fail(line);
}

bool Machine::handle_exit(unsigned index, kvm_run* run) {
    switch (run->exit_reason) {
        case KVM_EXIT_IO: return handle_port(*run, reinterpret_cast<uint8_t*>(run) + run->io.data_offset);
        case KVM_EXIT_MMIO:  // nothing is there
            if (!run->mmio.is_write) std::memset(run->mmio.data, 0xff, sizeof run->mmio.data);
            return true;
        case KVM_EXIT_INTR: return true;
        case KVM_EXIT_SHUTDOWN: end("triple fault"); return false;
        case KVM_EXIT_SYSTEM_EVENT: end("reset by the guest"); return false;
        case KVM_EXIT_FAIL_ENTRY:
            fail_vcpu(index, "could not be entered, hardware reason",
                      run->fail_entry.hardware_entry_failure_reason);
        case KVM_EXIT_INTERNAL_ERROR:
            fail_vcpu(index, "internal error of KVM, number", run->internal.suberror);
        default:
            fail_vcpu(index, "left KVM_RUN for a reason that this VMM does not know, number",
                      run->exit_reason);
    }
}

Uart* Machine::port_owner(uint16_t port, unsigned* number) {
    if (port >= com1 && port < com1 + uart_ports) {
        *number = port - com1;
        return serial_.get();
    }
    if (port >= com2 && port < com2 + uart_ports) {
        *number = port - com2;
        return channel_.get();
    }
    return nullptr;
}

bool Machine::handle_port(const kvm_run& run, uint8_t* data) {
    bool is_write = run.io.direction == KVM_EXIT_IO_OUT;
    unsigned number = 0;
    Uart* uart = run.io.size == 1 ? port_owner(run.io.port, &number) : nullptr;
    for (uint32_t index = 0; index < run.io.count; ++index, data += run.io.size) {
        if (uart && is_write)
            uart->write(number, *data);
        else if (uart)
            *data = uart->read(number);
        else if (!is_write)
            read_port(run.io.port, data, run.io.size);
        else if (const char* how = end_of_machine(run.io.port, data, run.io.size)) {
            end(how);
            return false;
        }
    }
    return true;
}

void Machine::end(const char* how) {
    if (ended_.exchange(true)) return;
    std::fprintf(stderr, "small_vmm: machine %u: %s\n", number_, how);
    if (running_->fetch_sub(1) == 1) {
        std::fflush(nullptr);
        _exit(0);
    }
    // The other vCPUs of this one see it at their next exit; a halted one just stays.
}

}  // namespace vmm
