#include "backends/kvm/threads.h"

#include <dirent.h>
#include <linux/kvm.h>
#include <sys/syscall.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <set>
#include <sstream>
#include <thread>

#include "backends/host/process.h"
#include "backends/kvm/thread.h"

namespace exo::kvm {
namespace {

constexpr std::chrono::milliseconds between_tries{5};
// How many times as often while a thread of the VMM runs as when all of them wait.
constexpr int patience = 20;

std::vector<pid_t> tasks_of(pid_t pid) {
    std::vector<pid_t> tasks;
    const std::string path = "/proc/" + std::to_string(pid) + "/task";
    const std::unique_ptr<DIR, int (*)(DIR*)> entries{::opendir(path.c_str()), &::closedir};
    while (const dirent* entry = entries ? ::readdir(entries.get()) : nullptr) {
        const auto tid = static_cast<pid_t>(std::strtol(entry->d_name, nullptr, 10));
        if (tid > 0) tasks.push_back(tid);
    }
    return tasks;
}

// A worker that the kernel has made in the VMM's name: KVM's own for huge pages, vhost's, io_uring's. It
// never runs the VMM's code, and its registers are a copy of its maker's.
bool is_kernel_worker(const std::string& task) {
    constexpr unsigned long io_worker = 0x10, user_worker = 0x4000;  // PF_…, include/linux/sched.h
    const auto flags = flags_of_thread(task);
    return !flags || (*flags & (io_worker | user_worker)) != 0;
}

// Of a thread that is in user mode or in the guest, its registers have to be asked: what was its last system
// call?
Result<SystemCall> stop_and_look(pid_t tid) {
    auto thread = TRY(TracedThread::seize(tid));
    thread.interrupt();
    const auto stop = thread.wait();
    if (stop.kind == ThreadStop::Kind::ended) return SystemCall{};
    const auto registers = thread.registers();
    thread.detach(stop.kind == ThreadStop::Kind::signal ? stop.signal : 0);
    if (!registers || static_cast<std::int64_t>(registers->orig_rax) < 0) return SystemCall{};
    return SystemCall{SystemCall::State::in_call,
                      static_cast<long>(registers->orig_rax),
                      {registers->rdi, registers->rsi, registers->rdx}};
}

}  // namespace

SystemCall parse_syscall(const std::string& text) {
    if (text.starts_with("running")) return {SystemCall::State::running, -1, {}};
    SystemCall call;
    std::istringstream words{text};
    std::string word;
    if (!(words >> call.number)) return {};
    for (auto& argument : call.arguments) {
        if (!(words >> word)) return {};
        argument = std::strtoull(word.c_str(), nullptr, 16);
    }
    call.state = SystemCall::State::in_call;
    return call;
}

VmmThreads find_threads(const Vm& vm, int tries) {
    VmmThreads found;
    std::set<pid_t> known;
    const auto is_ours = [&](int fd) { return std::ranges::count(vm.vcpus, fd, &VcpuHandle::fd) > 0; };
    bool busy = false;  // one runs, and may be on its way to KVM_RUN
    for (int turn = 0; turn < tries || (busy && turn < patience * tries); ++turn) {
        if (turn > 0) std::this_thread::sleep_for(between_tries);
        found.waiting.clear();
        busy = false;
        for (const pid_t tid : tasks_of(vm.pid)) {
            if (known.contains(tid)) continue;
            const std::string task = "/proc/" + std::to_string(vm.pid) + "/task/" + std::to_string(tid);
            if (is_kernel_worker(task)) continue;
            auto call = parse_syscall(read_proc_file(task + "/syscall"));
            if (call.state == SystemCall::State::running) {
                auto looked = stop_and_look(tid);
                if (!looked && looked.error().code != Errc::target_gone) found.refused = looked.error();
                busy = busy || looked;
                call = looked.value_or(SystemCall{});
            }
            const int fd = static_cast<int>(call.arguments[0]);
            const bool runs =
                call.number == SYS_ioctl && static_cast<std::uint32_t>(call.arguments[1]) == KVM_RUN;
            if (runs && is_ours(fd)) {
                found.by_vcpu[fd] = tid;
                known.insert(tid);
            } else if (call.number == SYS_futex) {
                found.waiting.push_back(tid);
            }
        }
        if (found.by_vcpu.size() == vm.vcpus.size()) break;
    }
    return found;
}

}  // namespace exo::kvm
