// A virtual machine of the small VMM: RAM, vCPUs, serial ports, and ports that do nothing.
#pragma once

#include <linux/kvm.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "tests/lab/vmm/gate.h"
#include "tests/lab/vmm/memory.h"
#include "tests/lab/vmm/options.h"
#include "tests/lab/vmm/uart.h"

namespace vmm {

class Machine {
public:
    // Makes it and loads its memory; nothing runs. `number` tells machines of one process apart, in messages
    // and in the names of threads. `kvm_fd` is /dev/kvm.
    Machine(int kvm_fd, unsigned number, const MachineOptions& options, Gate& gate);
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;

    // Starts one thread for each vCPU. They pass the gate before they run, and go on until the guest ends:
    // that ends the process when no other machine of it (`*running`) is left.
    void start(std::atomic<unsigned>* running);

private:
    struct Vcpu {
        int fd;
        kvm_run* run;
    };

    void make_vcpu(int kvm_fd, unsigned index);
    void run_vcpu(unsigned index);
    void be_busy(unsigned index);
    // False when the machine has ended.
    bool handle_exit(unsigned index, kvm_run* run);
    bool handle_port(const kvm_run& run, uint8_t* data);
    Uart* port_owner(uint16_t port, unsigned* number);
    void set_interrupt_line(uint32_t line, bool level) const;
    void end(const char* how);
    [[noreturn]] void fail_vcpu(unsigned index, const char* what, uint64_t number) const;

    int fd_;
    unsigned number_;
    Gate& gate_;
    GuestMemory memory_;
    std::vector<Vcpu> vcpus_;
    std::unique_ptr<Uart> serial_, channel_;
    std::chrono::microseconds locked_;
    std::mutex lock_;
    std::atomic<bool> ended_ = false;
    std::atomic<unsigned>* running_ = nullptr;
};

}  // namespace vmm
