// What lets vCPUs run: a monitor's pause and resume.
#pragma once

#include <linux/kvm.h>
#include <pthread.h>

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <vector>

namespace vmm {

// One for the process. A vCPU's thread passes it before each KVM_RUN; while the gate is closed it waits here,
// outside of KVM_RUN, as the vCPUs of a paused monitor do.
class Gate {
public:
    explicit Gate(bool open) : open_(open) {}

    // From the main thread.
    void open();
    void close();

    // From a vCPU's own thread, once, before its first pass(): `run` is what the vCPU shares with KVM.
    void enter(kvm_run* run);
    // Says so on stderr when no vCPU is left that does not wait.
    void pass(kvm_run* run);

private:
    struct Runner {
        pthread_t thread;
        kvm_run* run;
    };

    std::mutex mutex_;
    std::condition_variable opened_;
    bool open_;
    std::size_t waiting_ = 0;
    std::vector<Runner> runners_;
};

// SIGUSR1, SIGUSR2, SIGTERM and SIGINT wait for the main thread, and a kick that interrupts KVM_RUN does
// nothing else. Before any thread is made.
void prepare_signals();

// The main thread's work: opens and closes the gate as signals ask, until SIGTERM or SIGINT ends the process.
[[noreturn]] void serve_signals(Gate& gate);

}  // namespace vmm
