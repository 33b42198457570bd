#include "os-awareness/linux/invariants.h"

#include <doctest/doctest.h>

#include <cstddef>

#include "tests/support/task_builder.h"

namespace {

using namespace exo;
using namespace exo::test;

struct GuestWithoutBtf {
    GuestBuilder guest;
    TaskBuilder tasks{guest, 2, false};
    std::uint64_t init = tasks.add_process({.tid = 1, .comm = "init"});
    std::uint64_t kthreadd = tasks.add_process({.tid = 2, .comm = "kthreadd", .user = false});

    os::StructLayout infer() {
        guest.finish();
        os::ProbeFailure failure;
        auto image =
            os::find_kernel_image({guest.memory(), std::vector{tasks.vcpu(0, tasks.idle(0))}, {}}, failure);
        REQUIRE(image);
        return os::layout_from_invariants(*image, tasks.init_task());
    }
};

#define CHECK_FIELD(field, type, member)             \
    CHECK((field).offset == offsetof(type, member)); \
    CHECK((field).size != 0)

TEST_CASE_FIXTURE(GuestWithoutBtf, "every field is found where it is") {
    tasks.add_process({.tid = 3, .comm = "kworker/0:0", .state = 0x402, .user = false});
    tasks.add_process({.tid = 4, .comm = "kswapd0", .user = false});
    const auto shell = tasks.add_process({.tid = 70, .comm = "\x01sh"});
    tasks.add_thread(init, {.tid = 71, .comm = "thread"});
    tasks.edit<FakeTask>(shell, [](FakeTask& t) {
        std::ranges::copy(std::string_view{"a\n\x02"}, t.comm);
        t.exit_state = 0x20;
        t.stack = 0;
        t.mm = t.active_mm = 0;
    });
    const auto layout = infer();
    CHECK(layout.missing.empty());
    CHECK_FIELD(layout.task.comm, FakeTask, comm);
    CHECK_FIELD(layout.task.tasks, FakeTask, tasks);
    CHECK_FIELD(layout.task.pid, FakeTask, pid);
    CHECK_FIELD(layout.task.tgid, FakeTask, tgid);
    CHECK_FIELD(layout.task.stack, FakeTask, stack);
    CHECK_FIELD(layout.task.state, FakeTask, state);
    CHECK_FIELD(layout.task.flags, FakeTask, flags);
    CHECK_FIELD(layout.task.mm, FakeTask, mm);
    CHECK_FIELD(layout.task.exit_state, FakeTask, exit_state);
    CHECK_FIELD(layout.task.signal, FakeTask, signal);
    CHECK_FIELD(layout.task.thread_node, FakeTask, thread_node);
    CHECK(layout.task.sp.offset == offsetof(FakeTask, thread) + offsetof(FakeThread, sp));
    CHECK_FIELD(layout.signal.thread_head, FakeSignal, thread_head);
    CHECK_FIELD(layout.mm.pgd, FakeMm, pgd);
    CHECK_FIELD(layout.frame.ret_addr, FakeFrame, ret_addr);
    CHECK_FIELD(layout.frame.bp, FakeFrame, bp);
    CHECK_FALSE(layout.frame.flags);
}

TEST_CASE_FIXTURE(GuestWithoutBtf, "what cannot be found is named") {
    SUBCASE("no swapper") {
        tasks.edit<FakeTask>(tasks.init_task(), [](FakeTask& t) { t.comm[0] = 'x'; });
        CHECK(infer().missing == std::vector<std::string>{"task_struct.comm was not found"});
    }
    SUBCASE("no kthreadd") {
        tasks.edit<FakeTask>(kthreadd, [](FakeTask& t) { t.comm[0] = 'x'; });
        CHECK(infer().missing == std::vector<std::string>{"task_struct.tasks was not found"});
    }
    SUBCASE("no magic at the end of stacks") {
        guest.put(VirtualAddress{tasks.get<FakeTask>(init).stack}, std::uint64_t{0});
        CHECK(infer().missing == std::vector<std::string>{"task_struct.stack was not found"});
    }
}

TEST_CASE_FIXTURE(GuestWithoutBtf, "init_task is found by its name in the image") {
    guest.finish();
    os::ProbeFailure failure;
    auto image =
        os::find_kernel_image({guest.memory(), std::vector{tasks.vcpu(0, tasks.idle(0))}, {}}, failure);
    REQUIRE(image);
    os::StructLayout layout;
    layout.task.comm = {offsetof(FakeTask, comm), 16};
    layout.task.pid = {offsetof(FakeTask, pid), 4};
    layout.task.stack = {offsetof(FakeTask, stack), 8};
    CHECK(os::find_init_task(*image, layout) == tasks.init_task());
    tasks.edit<FakeTask>(tasks.init_task(), [](FakeTask& t) { t.comm[0] = 'x'; });
    CHECK(os::find_init_task(*image, layout) == 0);
}

}  // namespace
