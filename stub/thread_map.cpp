#include "stub/thread_map.h"

#include <algorithm>
#include <array>
#include <set>

namespace exo::stub {
namespace {

// As proc(5) and ps(1) name them.
constexpr auto state_names = std::to_array<std::pair<char, std::string_view>>({
    {'R', "running or runnable"},
    {'S', "interruptible sleep"},
    {'D', "uninterruptible sleep"},
    {'I', "idle"},
    {'T', "stopped"},
    {'t', "traced"},
    {'Z', "zombie"},
    {'X', "dead"},
    {'P', "parked"},
});

std::string_view state_name(char state) {
    for (const auto& [letter, name] : state_names) {
        if (letter == state) return name;
    }
    return "unknown state";
}

Thread of_vcpu(VcpuId vcpu, ThreadKey tid) {
    Thread thread;
    thread.tid = tid;
    thread.vcpu = vcpu;
    thread.name = "vCPU " + std::to_string(vcpu);
    return thread;
}

Thread of_task(const os::Task& task) {
    Thread thread;
    thread.tid = task.idle ? idle_tid + task.cpu : task.tid;
    thread.task = task;
    thread.name = task.comm;
    if (!task.idle) thread.process = task.process + "[" + std::to_string(task.tgid) + "]";
    return thread;
}

bool has_possible_tid(const os::Task& task) {
    return task.idle ? task.cpu < most_cpus : task.tid > 0 && task.tid < pid_max_limit;
}

}  // namespace

std::optional<Thread> ThreadMap::current(Machine& machine, VcpuId vcpu, bool vcpus_only) {
    const auto task = machine.current_task(vcpu);
    if (!task || !has_possible_tid(*task)) return std::nullopt;
    if (vcpus_only) return of_vcpu(vcpu, vcpu + 1);
    Thread thread = of_task(*task);
    thread.vcpu = vcpu;
    return thread;
}

void ThreadMap::rebuild(Machine& machine, bool vcpus_only) {
    threads_.clear();
    has_duplicates_ = false;
    const std::uint32_t vcpus = machine.target().vcpu_count();
    if (machine.os() == nullptr || vcpus_only) {
        for (VcpuId vcpu = 0; vcpu < vcpus; ++vcpu) threads_.push_back(of_vcpu(vcpu, vcpu + 1));
        index();
        return;
    }
    std::set<ThreadKey> taken;
    std::set<VcpuId> known;
    for (const os::Task& task : machine.os()->tasks()) {
        Thread thread = of_task(task);
        if (!has_possible_tid(task) || !taken.insert(thread.tid).second) {
            has_duplicates_ = true;
            thread.tid = duplicate_tid + static_cast<ThreadKey>(threads_.size());
        }
        if (task.vcpu && *task.vcpu < vcpus && known.insert(*task.vcpu).second) thread.vcpu = task.vcpu;
        threads_.push_back(std::move(thread));
    }
    for (VcpuId vcpu = 0; vcpu < vcpus; ++vcpu) {
        if (!known.contains(vcpu)) threads_.push_back(of_vcpu(vcpu, vcpu_tid + vcpu));
    }
    index();
}

void ThreadMap::put_first(ThreadKey tid) {
    const auto it = by_tid_.find(tid);
    if (it == by_tid_.end()) return;
    const auto begin = threads_.begin();
    std::rotate(begin, begin + static_cast<std::ptrdiff_t>(it->second),
                begin + static_cast<std::ptrdiff_t>(it->second) + 1);
    index();
}

void ThreadMap::index() {
    by_tid_.clear();
    for (std::size_t i = 0; i < threads_.size(); ++i) by_tid_.emplace(threads_[i].tid, i);
}

const Thread* ThreadMap::find(ThreadKey tid) const {
    const auto it = by_tid_.find(tid);
    return it == by_tid_.end() ? nullptr : &threads_[it->second];
}

const Thread* ThreadMap::on_vcpu(VcpuId vcpu) const {
    const auto it = std::ranges::find_if(threads_, [&](const Thread& t) { return t.vcpu == vcpu; });
    return it == threads_.end() ? nullptr : &*it;
}

bool ThreadMap::names_process(std::int64_t pid) {
    return pid == rsp::ThreadId::any || pid == rsp::ThreadId::all || pid == kernel_pid;
}

const Thread* ThreadMap::match(rsp::ThreadId id) const {
    if (!names_process(id.pid)) return nullptr;
    if (id.tid == rsp::ThreadId::any || id.tid == rsp::ThreadId::all) {
        return threads_.empty() ? nullptr : &threads_.front();
    }
    return find(id.tid);
}

std::string extra_info(const Thread& thread, os::OsAwareness* os) {
    std::string text;
    if (!thread.task) return text;  // its name says all
    const os::Task& task = *thread.task;
    text += task.state;
    text.append(" (").append(state_name(task.state)).append("), CPU ").append(std::to_string(task.cpu));
    if (task.vcpu) text.append(", on vCPU ").append(std::to_string(*task.vcpu));
    if (task.kernel_thread) {
        text += ", kernel thread";
    } else if (!thread.process.empty() && task.tid != task.tgid) {
        text.append(", process ").append(thread.process);
    }
    if (raw(task.wchan) != 0) {
        const auto where = os != nullptr ? os->locate(task.wchan) : std::nullopt;
        text.append(", wchan ").append(where ? where->symbol : hex(task.wchan));
    }
    return text;
}

}  // namespace exo::stub
