#include "backends/kvm/vm.h"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstring>
#include <map>
#include <memory>
#include <string_view>

#include "backends/host/process.h"

namespace exo::kvm {
namespace {

// virt/kvm/kvm_main.c: anon_inode_getfile("kvm-vm", …), and "kvm-vcpu:%d" with the vcpu_id.
constexpr std::string_view vm_link = "anon_inode:kvm-vm";
constexpr std::string_view vcpu_link = "anon_inode:kvm-vcpu:";

template <class Number>
std::optional<Number> whole_number(std::string_view text) {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

// Mapped, the name has a slash before it ("/anon_inode:…" or "anon_inode:…", d_path() by kernel version).
std::optional<std::uint32_t> vcpu_id(std::string_view name) {
    if (name.starts_with('/')) name.remove_prefix(1);
    if (!name.starts_with(vcpu_link)) return std::nullopt;
    name.remove_prefix(vcpu_link.size());
    return whole_number<std::uint32_t>(name.substr(0, name.find(' ')));
}

Result<std::vector<Link>> links_of(pid_t pid) {
    const std::string path = "/proc/" + std::to_string(pid) + "/fd";
    const std::unique_ptr<DIR, int (*)(DIR*)> entries{::opendir(path.c_str()), &::closedir};
    if (!entries) {
        if (errno == ENOENT || errno == ESRCH)
            return fail(Errc::not_found, "there is no process " + std::to_string(pid));
        return fail(Errc::denied, "looking at process " + std::to_string(pid) + ": " + std::strerror(errno) +
                                      "; run as root or as its user");
    }
    std::vector<Link> links;
    while (const dirent* entry = ::readdir(entries.get())) {
        const auto fd = whole_number<int>(entry->d_name);
        std::array<char, PATH_MAX> target{};
        const auto size =
            fd ? ::readlink((path + "/" + entry->d_name).c_str(), target.data(), target.size()) : -1;
        if (size > 0) links.push_back({*fd, {target.data(), static_cast<std::size_t>(size)}});
    }
    return links;
}

}  // namespace

Result<VmName> VmName::parse(const std::string& text) {
    const auto slash = text.find('/');
    const auto pid = whole_number<pid_t>(std::string_view{text}.substr(0, slash));
    std::optional<int> fd;
    if (slash != std::string::npos) fd = whole_number<int>(std::string_view{text}.substr(slash + 1));
    if (!pid || *pid <= 0 || (slash != std::string::npos && !fd))
        return fail(Errc::bad_request,
                    "kvm:" + text + " names no process: give the pid of a VMM, as in kvm:4711");
    return VmName{*pid, fd};
}

// /proc does not say to which VM a vCPU belongs. A VMM makes a VM before its vCPUs, and the kernel gives out
// the lowest descriptor that is free, so they follow it; a vCPU's number that comes again is of the next one.
// Their mappings have no order, but with several VMs the number of a vCPU and the turn tell them apart.
std::vector<Vm> group_vms(pid_t pid, std::vector<Link> links, const std::string& maps) {
    std::ranges::sort(links, {}, &Link::fd);
    std::map<std::uint32_t, std::vector<Mapping>> runs;  // by vCPU number, in the order of their addresses
    for (auto& mapping : parse_maps(maps)) {
        if (const auto id = vcpu_id(mapping.path); id && mapping.offset == 0) runs[*id].push_back(mapping);
    }
    std::vector<Vm> vms;
    for (const auto& link : links)
        if (link.target == vm_link) vms.push_back({.pid = pid, .fd = link.fd, .vcpus = {}});
    const auto has = [](const Vm& vm, std::uint32_t id) {
        return std::ranges::any_of(vm.vcpus, [&](const VcpuHandle& vcpu) { return vcpu.id == id; });
    };
    for (const auto& link : links) {
        const auto id = vcpu_id(link.target);
        if (!id) continue;
        const auto owner = std::ranges::find_if(
            vms, [&](const Vm& vm) { return !has(vm, *id) && (vm.fd < link.fd || vms.size() == 1); });
        auto& mapped = runs[*id];
        if (owner == vms.end() || mapped.empty()) continue;
        const Mapping run = mapped.back();  // mmap() goes downwards: the first one made is the highest
        mapped.pop_back();
        owner->vcpus.push_back({*id, link.fd, run.start, run.end - run.start});
    }
    for (auto& vm : vms) std::ranges::sort(vm.vcpus, {}, &VcpuHandle::id);
    return vms;
}

Result<std::vector<Vm>> vms_of(pid_t pid) {
    auto links = TRY(links_of(pid));
    return group_vms(pid, std::move(links), read_proc_file("/proc/" + std::to_string(pid) + "/maps"));
}

Result<Vm> find_vm(const VmName& name) { return choose_vm(TRY(vms_of(name.pid)), name); }

// One without a vCPU is none that can be debugged: VMMs make such to ask KVM what it can do.
Result<Vm> choose_vm(std::vector<Vm> vms, const VmName& name) {
    const std::string process = "process " + std::to_string(name.pid);
    const auto is_bare = [](const Vm& vm) { return vm.vcpus.empty(); };
    if (name.fd)
        std::erase_if(vms, [&](const Vm& vm) { return vm.fd != *name.fd; });
    else if (!std::ranges::all_of(vms, is_bare))
        std::erase_if(vms, is_bare);
    if (vms.empty())
        return fail(Errc::not_found, process + " holds no " + (name.fd ? "such " : "") +
                                         "virtual machine of KVM; `exogdb list` shows who does");
    if (vms.size() == 1) {
        if (vms.front().vcpus.empty())
            return fail(Errc::not_found, "the virtual machine of " + process + " has no vCPU yet");
        return std::move(vms.front());
    }
    std::string message = process + " holds several virtual machines: give one of";
    for (const auto& vm : vms) message += " kvm:" + std::to_string(name.pid) + "/" + std::to_string(vm.fd);
    return fail(Errc::bad_request, std::move(message));
}

std::string name_of_vmm(pid_t pid) {
    auto name = read_proc_file("/proc/" + std::to_string(pid) + "/comm");
    while (!name.empty() && name.back() == '\n') name.pop_back();
    return name;
}

std::vector<Vm> all_vms() {
    std::vector<Vm> all;
    const std::unique_ptr<DIR, int (*)(DIR*)> processes{::opendir("/proc"), &::closedir};
    while (const dirent* entry = processes ? ::readdir(processes.get()) : nullptr) {
        const auto pid = whole_number<pid_t>(entry->d_name);
        if (!pid) continue;
        if (auto vms = vms_of(*pid)) std::ranges::move(*vms, std::back_inserter(all));
    }
    return all;
}

}  // namespace exo::kvm
