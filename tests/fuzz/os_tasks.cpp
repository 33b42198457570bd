// A guest with tasks in which some bytes were changed: lists, pid table, per-CPU areas, stacks, page tables.
// However it is torn up, refresh() ends, and each task and each vCPU is there at most once.
#include <memory>
#include <set>
#include <vector>

#include "fuzz.h"
#include "os-awareness/linux/linux.h"
#include "tear_up.h"
#include "tests/support/task_builder.h"

namespace {

using namespace exo;
using namespace exo::test;

struct Guest {
    GuestBuilder builder{{.image_bytes = 4ULL << 20, .ram_bytes = 48ULL << 20}};
    TaskBuilder tasks{builder, 2};
    std::vector<std::uint64_t> places;  // what is changed, and what pointers are changed to
    std::unique_ptr<os::OsAwareness> os;
    std::vector<RegisterSet> vcpus;

    Guest() {
        for (std::uint32_t cpu = 0; cpu < 2; ++cpu) add(tasks.idle(cpu));
        for (std::uint32_t tid = 1; tid < 12; ++tid) {
            const auto leader = tasks.add_process({.tid = tid * 10, .comm = "process", .user = tid % 2 == 0});
            add(leader);
            if (tid == 1) tasks.run(1, leader);
            add(tasks.add_thread(leader, {.tid = tid * 10 + 1, .comm = "thread"}));
            places.push_back(tasks.pid_struct(tid * 10));
        }
        const auto root = tasks.get<FakePidNamespace>(tasks.pid_namespace()).xa_head & ~std::uint64_t{3};
        places.insert(places.end(), {tasks.pid_namespace(), root, tasks.area(0), tasks.area(1),
                                     tasks.area(0) + TaskBuilder::runqueues, tasks.per_cpu_offsets()});
        builder.finish();
        vcpus = {tasks.vcpu(0, tasks.idle(0)), tasks.vcpu_in_user(1, builder.kernel_root(), 0)};
        os::ProbeFailure failure;
        os = os::linux_probe({builder.memory(), vcpus, {}}, failure);
        fuzz::require(os != nullptr);
    }
    void add(std::uint64_t task) {
        const auto t = tasks.get<FakeTask>(task);
        places.insert(places.end(), {task, t.signal, t.thread.sp});
        if (t.mm != 0) places.push_back(t.mm);
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static Guest guest;
    fuzz::Input input{data, size};
    const fuzz::TearUp torn{guest.builder, guest.places, input};
    const auto refreshed = guest.os->refresh(guest.vcpus);
    std::set<std::uint64_t> addresses;
    std::set<VcpuId> vcpus;
    for (const auto& task : guest.os->tasks()) {
        fuzz::require(refreshed && addresses.insert(raw(task.address)).second);
        fuzz::require(!task.vcpu || vcpus.insert(*task.vcpu).second);
        fuzz::require(!task.vcpu || !guest.os->saved_registers(task));
        (void)guest.os->saved_registers(task);
        if (const auto space = guest.os->task_space(task))
            (void)(*space)->translate(VirtualAddress{0x400000});
    }
    if (torn.changed()) return 0;
    fuzz::require(refreshed && addresses.size() == 24 && vcpus.size() == 2 && guest.os->problems().empty());
    return 0;
}
