#include <algorithm>
#include <functional>
#include <iterator>
#include <utility>

#include "backends/host/process.h"
#include "backends/kvm/recover.h"
#include "backends/kvm/target.h"
#include "backends/kvm/thread.h"
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

// Another tracer, yama, AppArmor, another user: the kernel tells of all by the same request.
Check check_ptrace(pid_t pid) {
    const auto tried = TracedThread::try_to_seize(pid);
    if (!tried) return failed("ptrace permission", tried.error());
    return passed("ptrace permission", "process " + std::to_string(pid) + " can be traced");
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

bool is_of(const JournalEntry& entry, const VmName& name) {
    return entry.vmm_pid == name.pid && (!name.fd || *name.fd == entry.vm_fd);
}

Result<RecoverReport> recover_those(const std::function<bool(const JournalEntry&)>& are_meant) {
    RecoverReport report;
    for (const auto& entry : read_journals()) {
        if (!are_meant(entry)) continue;
        if (!entry.vmm_alive()) {
            remove_journal(entry);
            report.actions.push_back("forgot the guest of process " + std::to_string(entry.vmm_pid) +
                                     ", which has ended");
            continue;
        }
        if (entry.owner_alive())
            return fail(Errc::busy, "exogdb process " + std::to_string(entry.owner_pid) +
                                        " has this guest; end it first");
        std::ranges::move(TRY(recover_guest(entry)), std::back_inserter(report.actions));
    }
    return report;
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
    const auto wanted = TRY(VmName::parse(name));
    return recover_those([&](const JournalEntry& entry) { return is_of(entry, wanted); });
}

Result<RecoverReport> recover_target(const std::string& target) {
    return recover_those([&](const JournalEntry& entry) { return entry.target == target; });
}

bool is_in_journal(const std::string& name) {
    const auto wanted = VmName::parse(name);
    return wanted && std::ranges::any_of(read_journals(), [&](const JournalEntry& entry) {
               return is_of(entry, *wanted) && entry.vmm_alive();
           });
}

bool any_left_behind() {
    return std::ranges::any_of(
        read_journals(), [](const JournalEntry& entry) { return entry.vmm_alive() && !entry.owner_alive(); });
}

Result<void> may_trace(const std::string& name) {
    const auto vm = TRY(find_vm(TRY(VmName::parse(name))));
    return TracedThread::try_to_seize(vm.pid);
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
    checks.push_back(check_ptrace(vm->pid));
    const bool traceable = checks.back().ok;
    checks.push_back(check_sandbox(vm->pid));
    if (traceable) checks.push_back(check_threads(*vm));
    checks.push_back(check_kvm_journal(*vm));
    return checks;
}

}  // namespace exo::kvm
