#include "stub/thread_map.h"

#include <set>

#include <doctest/doctest.h>

#include "tests/support/fake_machine.h"

using namespace exo;
using namespace exo::stub;
using exo::test::FakeMachine;

namespace {

ThreadMap map_of(FakeMachine& fake, bool vcpus_only = false) {
    REQUIRE(fake.machine->look().has_value());
    ThreadMap map;
    map.rebuild(*fake.machine, vcpus_only);
    return map;
}

std::vector<ThreadKey> ids(const ThreadMap& map) {
    std::vector<ThreadKey> tids;
    for (const Thread& thread : map.threads()) tids.push_back(thread.tid);
    return tids;
}

using Ids = std::vector<ThreadKey>;

}  // namespace

TEST_CASE("without an OS the threads are the vCPUs, from 1 on") {
    FakeMachine fake{{.vcpus = 3}};
    const ThreadMap map = map_of(fake);
    CHECK(ids(map) == Ids{1, 2, 3});
    CHECK(map.find(2)->vcpu == 1U);
    CHECK(map.on_vcpu(2)->tid == 3);
    CHECK(map.on_vcpu(3) == nullptr);
    CHECK_FALSE(map.find(1)->task.has_value());
}

TEST_CASE("tasks replace vCPUs, unless vCPUs are asked for") {
    FakeMachine fake;
    fake.add_task(1, "init", 0);
    fake.add_task(100, "bash", 1);
    fake.add_task(200, "sleeper");
    CHECK(ids(map_of(fake)) == Ids{1, 100, 200});
    CHECK(ids(map_of(fake, true)) == Ids{1, 2});
    const ThreadMap map = map_of(fake);
    CHECK(map.find(100)->vcpu == 1U);
    CHECK_FALSE(map.find(200)->vcpu.has_value());
    CHECK(map.on_vcpu(1)->name == "bash");
}

// Other ids would be taken for guest processes, and by lldb for processes of its own host.
TEST_CASE("what has no TID of its own lies above PID_MAX_LIMIT") {
    CHECK(kernel_pid > pid_max_limit);
    FakeMachine fake{{.vcpus = 3}};
    for (std::uint32_t cpu = 0; cpu < 2; ++cpu) {
        os::Task& idle = fake.add_task(0, "swapper", cpu);
        idle.idle = true;
        idle.cpu = cpu;
    }
    const ThreadMap map = map_of(fake);
    CHECK(ids(map) == Ids{idle_tid, idle_tid + 1, vcpu_tid + 2});
    CHECK(map.on_vcpu(2)->tid == vcpu_tid + 2);  // nobody knows what it runs
    for (const ThreadKey tid : ids(map)) CHECK(tid > pid_max_limit);
}

TEST_CASE("a corrupt task list: each thread has an id of its own, and none is 0 or taken for another") {
    FakeMachine fake{{.vcpus = 2}};
    fake.add_task(7, "one", 0);
    fake.add_task(7, "two");
    fake.add_task(7, "three");
    fake.add_task(0, "zero");
    fake.add_task(static_cast<std::uint32_t>(vcpu_tid) + 1, "vcpu");
    fake.add_task(static_cast<std::uint32_t>(duplicate_tid) + 1, "duplicate");
    fake.add_task(~0U, "huge");
    os::Task& idle = fake.add_task(0, "idle");
    idle.idle = true;
    idle.cpu = ~0U;
    const ThreadMap map = map_of(fake);
    CHECK(map.threads().size() == 9);  // and vCPU 1
    std::set<ThreadKey> seen;
    for (const Thread& thread : map.threads()) {
        CAPTURE(thread.name);
        CHECK(thread.tid > 0);
        CHECK(seen.insert(thread.tid).second);
        CHECK(map.find(thread.tid) == &thread);
    }
    CHECK(map.find(7)->name == "one");
    CHECK_FALSE(map.find(vcpu_tid + 1)->task.has_value());
}

TEST_CASE("two tasks on one vCPU, or on one that is not there") {
    FakeMachine fake;
    fake.add_task(1, "first", 0);
    fake.add_task(2, "second", 0);
    fake.add_task(3, "nowhere", 9);
    const ThreadMap map = map_of(fake);
    CHECK(map.on_vcpu(0)->tid == 1);
    CHECK_FALSE(map.find(2)->vcpu.has_value());
    CHECK_FALSE(map.find(3)->vcpu.has_value());
    CHECK(map.on_vcpu(1)->tid == vcpu_tid + 1);
}

TEST_CASE("the thread that stopped comes first, the others stay in order") {
    FakeMachine fake;
    for (const std::uint32_t tid : {1U, 2U, 3U, 4U}) fake.add_task(tid, "task");
    ThreadMap map = map_of(fake, false);
    map.put_first(3);
    CHECK(ids(map) == Ids{3, 1, 2, 4, vcpu_tid, vcpu_tid + 1});
    CHECK(map.find(4)->tid == 4);
    map.put_first(99);
    CHECK(ids(map).front() == 3);
}

TEST_CASE("patterns") {
    FakeMachine fake;
    fake.add_task(5, "task", 0);
    const ThreadMap map = map_of(fake);
    using rsp::ThreadId;
    CHECK(map.match({kernel_pid, 5})->tid == 5);
    CHECK(map.match({ThreadId::any, 5})->tid == 5);
    CHECK(map.match({ThreadId::all, 5})->tid == 5);
    CHECK(map.match({kernel_pid, ThreadId::all}) != nullptr);
    CHECK(map.match({kernel_pid, ThreadId::any}) != nullptr);
    CHECK(map.match({1, 5}) == nullptr);
    CHECK(map.match({1, ThreadId::all}) == nullptr);
    CHECK(map.match({kernel_pid, 6}) == nullptr);
}

TEST_CASE("extra info") {
    FakeMachine fake;
    os::Task& worker = fake.add_task(101, "worker");
    worker.tgid = 100;
    worker.process = "bash";
    worker.cpu = 1;
    worker.wchan = VirtualAddress{0x2010};
    os::Task& thread = fake.add_task(2, "kthreadd", 0);
    thread.kernel_thread = true;
    fake.add_task(3, "odd").state = '#';
    fake.kernel.symbols.add(VirtualAddress{0x2000}, 'T', "do_wait");
    fake.kernel.symbols.finish();
    const ThreadMap map = map_of(fake);
    auto* os = fake.machine->os();
    CHECK(extra_info(*map.find(101), os) ==
          "S (interruptible sleep), CPU 1, process bash[100], wchan do_wait");
    CHECK(extra_info(*map.find(2), os) == "R (running or runnable), CPU 0, on vCPU 0, kernel thread");
    CHECK(extra_info(*map.find(3), os).starts_with("# (unknown state)"));
    CHECK(extra_info(*map.on_vcpu(1), os).empty());  // "vCPU 1" is its name already
}
