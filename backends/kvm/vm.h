// Virtual machines of KVM as /proc shows them: which process holds which, whatever monitor (VMM) it is.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backends/api/result.h"

namespace exo::kvm {

struct VcpuHandle {
    std::uint32_t id = 0;        // KVM's vcpu_id: N in "anon_inode:kvm-vcpu:N"
    int fd = -1;                 // in the VMM
    std::uint64_t run = 0;       // address of its struct kvm_run in the VMM
    std::uint64_t run_size = 0;  // bytes mapped: KVM_GET_VCPU_MMAP_SIZE
};

struct Vm {
    pid_t pid = 0;
    int fd = -1;                    // "anon_inode:kvm-vm" in the VMM
    std::vector<VcpuHandle> vcpus;  // by id; those without a mapped kvm_run are left out
};

// What `kvm:` targets name: "4711", or "4711/12" for the VM whose descriptor is 12, where a process has more
// than one.
struct VmName {
    pid_t pid = 0;
    std::optional<int> fd;

    static Result<VmName> parse(const std::string& text);
};

// All that the process has, by descriptor. Empty for a process without; denied, target_gone.
Result<std::vector<Vm>> vms_of(pid_t pid);
// The one that `name` means. not_found, or bad_request if there are several.
Result<Vm> find_vm(const VmName& name);
// What the VMM is called: /proc/PID/comm.
std::string name_of_vmm(pid_t pid);
// Of every process that this user may look at.
std::vector<Vm> all_vms();

// For the tests: of what a process has; and that, from the text of /proc/PID/maps and the links in
// /proc/PID/fd.
struct Link {
    int fd = -1;
    std::string target;
};
Result<Vm> choose_vm(std::vector<Vm> vms, const VmName& name);
std::vector<Vm> group_vms(pid_t pid, std::vector<Link> links, const std::string& maps);

}  // namespace exo::kvm
