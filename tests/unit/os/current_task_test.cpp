// The task of one vCPU without the list. That it is the list's is checked in vcpu_task_test.cpp, too.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>

#include "os-awareness/linux/linux.h"
#include "tests/support/task_builder.h"

namespace {

using namespace exo;
using namespace exo::test;

// shell runs on CPU 0, swapper/1 on CPU 1.
struct OneVcpu {
    GuestBuilder guest;
    TaskBuilder tasks{guest, 2};
    std::uint64_t shell = tasks.add_process({.tid = 10, .comm = "sh"});
    std::uint64_t thread = tasks.add_thread(shell, {.tid = 11, .comm = "sh-worker"});
    std::uint64_t other = tasks.add_process({.tid = 12, .comm = "cc"});
    std::unique_ptr<os::OsAwareness> os;

    OneVcpu() {
        tasks.run(0, shell);
        guest.finish();
        os::ProbeFailure failure;
        const std::vector vcpus{tasks.vcpu(0, shell), tasks.vcpu(1, tasks.idle(1))};
        os = os::linux_probe({guest.memory(), vcpus, {}}, failure);
        REQUIRE(os != nullptr);
        REQUIRE(os->refresh(vcpus));
    }
    std::optional<os::Task> on_cpu(std::uint32_t cpu, std::uint64_t task) {
        return os->current_task(tasks.vcpu(cpu, task), cpu);
    }
    // As a list that is made now has it.
    os::Task listed(std::uint64_t task, std::uint64_t on_cpu0) {
        REQUIRE(os->refresh(std::vector{tasks.vcpu(0, on_cpu0), tasks.vcpu(1, tasks.idle(1))}));
        const auto it = std::ranges::find(os->tasks(), VirtualAddress{task}, &os::Task::address);
        REQUIRE(it != os->tasks().end());
        return *it;
    }
};

TEST_CASE_FIXTURE(OneVcpu, "a task that came to run since the list was made is told as a new list has it") {
    for (const auto task : {other, thread, shell, tasks.idle(0)}) {
        tasks.run(0, task);
        tasks.edit<FakeTask>(task, [](FakeTask& t) { t.state = 0; });
        const auto told = on_cpu(0, task);
        REQUIRE(told);
        CHECK(raw(told->address) == task);
        CHECK(told->vcpu == 0U);
        CHECK(*told == listed(task, task));
    }
}

TEST_CASE_FIXTURE(OneVcpu, "one that was made since, and what it is called now") {
    const auto fresh = tasks.add_process({.tid = 70, .comm = "new"});
    tasks.run(0, fresh);
    auto told = on_cpu(0, fresh);
    REQUIRE(told);
    CHECK(told->tid == 70);
    CHECK(told->comm == "new");
    tasks.edit<FakeTask>(fresh, [](FakeTask& t) { std::ranges::copy("exec", t.comm); });
    told = on_cpu(0, fresh);
    REQUIRE(told);
    CHECK(told->comm == "exec");
    CHECK(os->task_space(*told));  // though the list has none of it
    CHECK(std::ranges::none_of(os->tasks(), [](const os::Task& t) { return t.tid == 70; }));
}

TEST_CASE_FIXTURE(OneVcpu, "the snapshot stays, and a new one replaces what was told") {
    const std::vector before(os->tasks().begin(), os->tasks().end());
    tasks.run(0, other);
    REQUIRE(on_cpu(0, other));
    CHECK(std::ranges::equal(os->tasks(), before));
    CHECK(listed(other, other).vcpu == 0U);
    CHECK(listed(shell, other).vcpu == std::nullopt);
}

TEST_CASE_FIXTURE(OneVcpu, "it costs no more where there are many tasks") {
    tasks.run(0, other);
    const auto cost = [&] {
        const auto reads = guest.memory().reads();
        REQUIRE(on_cpu(0, other));
        return guest.memory().reads() - reads;
    };
    const auto few = cost();
    for (std::uint32_t tid = 100; tid < 200; ++tid) tasks.add_process({.tid = tid});
    CHECK(cost() == few);
}

TEST_CASE_FIXTURE(OneVcpu, "what only the list can tell is not told") {
    tasks.run(0, other);
    REQUIRE(on_cpu(0, other));
    auto vcpu = tasks.vcpu(0, other);
    SUBCASE("it exits and is off its list: another can have its TID") { tasks.unlink(other); }
    SUBCASE("a thread that is off its group's list") {
        tasks.run(0, thread);
        const auto links = tasks.get<FakeTask>(thread).thread_node;
        tasks.edit<ListLinks>(links.prev, [&](ListLinks& l) { l.next = links.next; });
        tasks.edit<ListLinks>(links.next, [&](ListLinks& l) { l.prev = links.prev; });
        vcpu = tasks.vcpu(0, thread);
    }
    SUBCASE("it says that it is on another CPU") {
        tasks.edit<FakeTask>(other, [](FakeTask& t) { t.cpu = 1; });
    }
    SUBCASE("no idle task, and its pid is 0") {
        tasks.edit<FakeTask>(other, [](FakeTask& t) { t.pid = t.tgid = 0; });
    }
    SUBCASE("another CPU's idle task") {
        tasks.run(0, tasks.idle(1));
        vcpu = tasks.vcpu(0, tasks.idle(1));
    }
    SUBCASE("it is none") {
        guest.put(VirtualAddress{tasks.area(0) + TaskBuilder::current_task},
                  std::uint64_t{0xffffc90000000000});
        tasks.edit<FakeRq>(tasks.area(0) + TaskBuilder::runqueues, [](FakeRq& rq) { rq.curr = 0; });
    }
    SUBCASE("the CPU's area is another's now") {
        guest.put(VirtualAddress{tasks.area(0) + TaskBuilder::cpu_number}, std::uint32_t{1});
    }
    SUBCASE("a GDT of no CPU, though the GS base is of one") {
        vcpu.set(x86::gdt_base, raw(guest.banner()) & ~std::uint64_t{0xfff});
    }
    SUBCASE("neither GDT nor GS base: by its stack") {
        vcpu.set_unavailable(x86::gdt_base);
        vcpu.set(x86::gs_base, 0);
        vcpu.set(x86::k_gs_base, 0);
    }
    SUBCASE("the vCPU is in firmware") { vcpu = guest.vcpu_in_firmware(); }
    SUBCASE("the kernel is gone") { guest.put_text(guest.banner(), "Windows"); }
    CHECK_FALSE(os->current_task(vcpu, 0));
}

}  // namespace
