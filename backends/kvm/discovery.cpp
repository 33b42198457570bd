#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

#include "backends/host/process.h"
#include "backends/kvm/recover.h"
#include "backends/kvm/target.h"
#include "backends/kvm/threads.h"

namespace exo::kvm {
namespace {

Check passed(std::string name, std::string detail) { return {std::move(name), true, std::move(detail), {}}; }
Check failed(std::string name, std::string detail, std::string remedy) {
    return {std::move(name), false, std::move(detail), std::move(remedy)};
}

// An error's message is "what: why; what to do".
Check failed(std::string name, const Error& error) {
    const auto semicolon = error.message.find("; ");
    const bool has_remedy = semicolon != std::string::npos;
    return failed(std::move(name), error.message.substr(0, semicolon),
                  has_remedy ? error.message.substr(semicolon + 2) : "give another target");
}

Check check_kvm_tracer(pid_t pid) {
    const auto tracer = status_field(pid, "TracerPid");
    if (!tracer || *tracer == "0") return passed("tracer", "none");
    return failed("tracer", "process " + *tracer + " traces the VMM", "end that: a thread has one tracer");
}

Check check_ptrace(pid_t pid) {
    const auto scope = read_proc_file("/proc/sys/kernel/yama/ptrace_scope");
    const std::string yama = scope.empty() || scope.front() == '0'
                                 ? ""
                                 : " (kernel.yama.ptrace_scope is " + scope.substr(0, 1) + ")";
    // Opening it asks the kernel the same as ptrace(2) does.
    const std::string path = "/proc/" + std::to_string(pid) + "/mem";
    const FileDescriptor file{::open(path.c_str(), O_RDWR | O_CLOEXEC)};
    if (file.valid()) return passed("ptrace permission", "process " + std::to_string(pid) + " can be traced");
    const auto user = status_field(pid, "Uid").value_or("?");
    return failed("ptrace permission", std::string{std::strerror(errno)} + yama,
                  "run as root, or as the VMM's user (uid " + user.substr(0, user.find_first_of("\t ")) +
                      ") with CAP_SYS_PTRACE");
}

Check check_sandbox(pid_t pid) {
    const auto seccomp = status_field(pid, "Seccomp");
    if (!seccomp || *seccomp == "0") return passed("sandbox", "none");
    return passed("sandbox",
                  "the VMM filters its system calls (seccomp); the filter is lifted while its "
                  "vCPU threads are traced, which needs CAP_SYS_ADMIN");
}

Check check_threads(const Vm& vm) {
    const auto threads = find_threads(vm, 20);
    if (threads.refused) return failed("vCPU threads", *threads.refused);
    if (threads.by_vcpu.size() == vm.vcpus.size()) {
        std::string list;
        for (const auto& [fd, tid] : threads.by_vcpu)
            list += (list.empty() ? "" : ", ") + std::to_string(tid);
        return passed("vCPU threads", list);
    }
    return passed("vCPU threads", std::to_string(threads.by_vcpu.size()) + " of " +
                                      std::to_string(vm.vcpus.size()) +
                                      " run: the others are paused by the VMM, and cannot step");
}

Check check_kvm_journal(const Vm& vm) {
    for (const auto& entry : read_journals()) {
        if (entry.vmm_pid != vm.pid || entry.vm_fd != vm.fd || !entry.vmm_alive()) continue;
        if (entry.owner_alive())
            return failed("other exogdb", "process " + std::to_string(entry.owner_pid) + " has this guest",
                          "connect to that one, or end it");
        return failed("other exogdb", "one was killed and left the guest unclean",
                      "run `exogdb recover " + entry.target + "`");
    }
    return passed("other exogdb", "none");
}

}  // namespace

Result<std::vector<GuestSummary>> list() {
    std::vector<GuestSummary> guests;
    const auto vms = all_vms();
    for (const auto& vm : vms) {
        if (vm.vcpus.empty()) continue;  // made to ask what KVM can do
        const bool alone = std::ranges::count_if(vms, [&](const Vm& other) {
                               return other.pid == vm.pid && !other.vcpus.empty();
                           }) == 1;
        auto target = "kvm:" + std::to_string(vm.pid);
        if (!alone) target += "/" + std::to_string(vm.fd);
        guests.push_back({.target = std::move(target),
                          .name = name_of_vmm(vm.pid),
                          .state = "unknown",
                          .pid = vm.pid,
                          .accelerator = "kvm",
                          .vcpus = static_cast<std::uint32_t>(vm.vcpus.size())});
    }
    return guests;
}

Result<RecoverReport> recover(const std::string& name) {
    RecoverReport report;
    const auto wanted = TRY(VmName::parse(name));
    for (const auto& entry : read_journals()) {
        if (entry.vmm_pid != wanted.pid || (wanted.fd && *wanted.fd != entry.vm_fd)) continue;
        if (!entry.vmm_alive()) {
            remove_journal(entry);
            report.actions.push_back("forgot the guest of process " + std::to_string(entry.vmm_pid) +
                                     ", which has ended");
            continue;
        }
        if (entry.owner_pid != ::getpid() && entry.owner_alive())
            return fail(Errc::busy, "exogdb process " + std::to_string(entry.owner_pid) +
                                        " has this guest; end it first");
        std::ranges::move(TRY(recover_guest(entry)), std::back_inserter(report.actions));
    }
    return report;
}

std::vector<Check> diagnose(const std::string& name) {
    std::vector<Check> checks;
    const auto wanted = VmName::parse(name);
    if (!wanted) return {failed("process", wanted.error())};
    const auto vm = find_vm(*wanted);
    if (!vm) return {failed("virtual machine", vm.error())};
    checks.push_back(passed("virtual machine", name_of_vmm(vm->pid) + ", " +
                                                   std::to_string(vm->vcpus.size()) + " vCPUs, descriptor " +
                                                   std::to_string(vm->fd)));
    checks.push_back(check_kvm_tracer(vm->pid));
    checks.push_back(check_ptrace(vm->pid));
    checks.push_back(check_sandbox(vm->pid));
    if (checks[1].ok && checks[2].ok) checks.push_back(check_threads(*vm));
    checks.push_back(check_kvm_journal(*vm));
    return checks;
}

}  // namespace exo::kvm
