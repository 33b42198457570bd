// A small KVM monitor for tests: it runs bare code or a Linux kernel and knows nothing of debuggers.
#include <fcntl.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <vector>

#include "tests/lab/vmm/fail.h"
#include "tests/lab/vmm/gate.h"
#include "tests/lab/vmm/machine.h"
#include "tests/lab/vmm/options.h"

int main(int count, char** words) {
    using namespace vmm;
    Options options = parse_options(count, words);
    int kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm_fd < 0) fail_errno("/dev/kvm");
    prepare_signals();
    Gate gate(!options.paused);
    std::vector<std::unique_ptr<Machine>> machines;
    for (const MachineOptions& machine : options.machines)
        machines.push_back(
            std::make_unique<Machine>(kvm_fd, static_cast<unsigned>(machines.size()), machine, gate));
    std::atomic<unsigned> running = static_cast<unsigned>(machines.size());
    for (auto& machine : machines) machine->start(&running);
    if (options.paused) std::fputs("small_vmm: paused\n", stderr);  // from here on it takes signals
    serve_signals(gate);
}
