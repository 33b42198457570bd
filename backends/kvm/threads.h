// Which thread of a VMM runs which vCPU: told by what they do, not by their names.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "backends/api/error.h"
#include "backends/kvm/vm.h"

namespace exo::kvm {

struct VmmThreads {
    std::map<int, pid_t> by_vcpu;  // descriptor of the vCPU: the thread that is in KVM_RUN with it
    std::vector<pid_t>
        waiting;  // others, which wait for a lock or a condition: they may be asked for an ioctl
    std::optional<Error> refused;  // why a thread that is running could not be looked at
};

// Looks again and again until every vCPU of `vm` is found, or for `tries` times, 5 ms apart; for longer where
// the VMM is at work. A thread that is running is
// stopped for a moment to see what it does; one that waits is told by /proc/PID/task/TID/syscall.
VmmThreads find_threads(const Vm& vm, int tries);

// The first fields of /proc/PID/task/TID/syscall: number, and three arguments of the call. For the tests.
struct SystemCall {
    enum class State { in_call, running, unknown } state = State::unknown;
    long number = -1;
    std::uint64_t arguments[3] = {};
};
SystemCall parse_syscall(const std::string& text);

}  // namespace exo::kvm
