#include "os-awareness/linux/tasks.h"

#include <doctest/doctest.h>

#include <cstddef>

#include "tests/support/task_builder.h"

namespace {

using namespace exo;
using namespace exo::test;
using os::state_letter;

struct GuestTasks {
    GuestBuilder guest;
    TaskBuilder tasks{guest};
    std::uint64_t init = tasks.add_process({.tid = 1, .comm = "init"});
    std::uint64_t kthreadd = tasks.add_process({.tid = 2, .comm = "kthreadd", .user = false});
    std::uint64_t shell = tasks.add_process({.tid = 70, .comm = "sh"});
    std::uint64_t thread = tasks.add_thread(shell, {.tid = 71, .comm = "worker"});
    std::uint64_t last = tasks.add_process({.tid = 80, .comm = "sleep"});

    std::unique_ptr<os::OsAwareness> os;
    // Probed and refreshed with both vCPUs idle.
    os::OsAwareness& probe() {
        if (os == nullptr) {
            guest.finish();
            os::ProbeFailure failure;
            os = os::probe({guest.memory(), vcpus(), {}}, os::Choice::automatic, failure);
            REQUIRE_MESSAGE(os != nullptr, (failure.steps.empty() ? "" : failure.steps.back()));
        }
        const auto refreshed = os->refresh(vcpus());
        REQUIRE_MESSAGE(refreshed, (refreshed ? "" : refreshed.error().message));
        return *os;
    }
    std::vector<RegisterSet> vcpus() const {
        return {tasks.vcpu(0, tasks.idle(0)), tasks.vcpu(1, tasks.idle(1))};
    }
    std::string names() {
        std::string text;
        for (const auto& task : probe().tasks()) text += (text.empty() ? "" : " ") + task.comm;
        return text;
    }
    std::string problems() {
        std::string text;
        for (const auto& line : os->problems()) text += line + "\n";
        return text;
    }
    const os::Task& task(std::uint32_t tid) {
        for (const auto& t : os->tasks()) {
            if (t.tid == tid && !t.idle) return t;
        }
        FAIL("no task " << tid);
        std::abort();
    }
};

const std::string everybody = "swapper/0 swapper/1 init kthreadd sh worker sleep";

bool contains(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

TEST_CASE("states as ps prints them") {
    CHECK(state_letter(0, 0) == 'R');
    CHECK(state_letter(1, 0) == 'S');
    CHECK(state_letter(2, 0) == 'D');
    CHECK(state_letter(0x102, 0) == 'D');   // TASK_KILLABLE
    CHECK(state_letter(0x402, 0) == 'I');   // TASK_IDLE
    CHECK(state_letter(0x2002, 0) == 'D');  // freezable
    CHECK(state_letter(4, 0) == 'T');
    CHECK(state_letter(0x104, 0) == 'T');
    CHECK(state_letter(8, 0) == 't');
    CHECK(state_letter(0x40, 0) == 'P');
    CHECK(state_letter(0x80, 0x20) == 'Z');
    CHECK(state_letter(0x80, 0x10) == 'X');
    CHECK(state_letter(0x800, 0) == 'R');   // TASK_NEW
    CHECK(state_letter(0x200, 0) == 'R');   // TASK_WAKING
    CHECK(state_letter(0x1000, 0) == 'D');  // TASK_RTLOCK_WAIT
    CHECK(state_letter(0x8000, 0) == 'D');  // TASK_FROZEN
    CHECK(state_letter(~0ULL, ~0ULL) != '\0');
}

TEST_CASE("comm is made printable") {
    const auto text = [](std::string_view s) { return os::printable(std::as_bytes(std::span{s})); };
    CHECK(text("kworker/0:1") == "kworker/0:1");
    CHECK(text(std::string_view{"ab\0cd", 5}) == "ab");
    CHECK(text("a\n\x01\x7f\xff b)") == "a???? b)");
}

TEST_CASE_FIXTURE(GuestTasks, "idle tasks, thread groups and threads, in order, each once") {
    CHECK(names() == everybody);
    CHECK(problems().empty());
    CHECK(task(71).tgid == 70);
    CHECK(task(71).process == "sh");
    CHECK(task(70).process == "sh");
    CHECK(task(2).kernel_thread);
    CHECK_FALSE(task(1).kernel_thread);
    CHECK(task(1).state == 'S');
    CHECK(os->tasks()[0].idle);
    CHECK(os->tasks()[0].vcpu == 0);
    CHECK(os->tasks()[1].vcpu == 1);
    CHECK(os->tasks()[1].cpu == 1);
    CHECK_FALSE(task(1).vcpu);
    CHECK(task(1).wchan == VirtualAddress{tasks.in_sleeper()});
    CHECK(raw(os->tasks()[0].wchan) == 0);
}

TEST_CASE_FIXTURE(GuestTasks, "a broken list of tasks is reported and what both ends give is kept") {
    probe();
    SUBCASE("an unreadable node") {
        tasks.edit<FakeTask>(init, [](FakeTask& t) { t.tasks.next = 0xffffc90000000000; });
    }
    SUBCASE("a NULL") {
        tasks.edit<FakeTask>(init, [](FakeTask& t) { t.tasks.next = 0; });
    }
    SUBCASE("a cycle") {
        tasks.edit<FakeTask>(shell, [&](FakeTask& t) { t.tasks.next = init + offsetof(FakeTask, tasks); });
    }
    SUBCASE("to itself") {
        tasks.edit<FakeTask>(init, [&](FakeTask& t) { t.tasks.next = init + offsetof(FakeTask, tasks); });
    }
    SUBCASE("user memory") {
        tasks.edit<FakeTask>(init, [](FakeTask& t) { t.tasks.next = 0x400000; });
    }
    SUBCASE("no task") {
        tasks.edit<FakeTask>(init, [&](FakeTask& t) { t.tasks.next = tasks.area(0) + 0x3000; });
    }
    CHECK(names() == everybody);
    CHECK(contains(problems(), "list of tasks: node 0x"));
}

TEST_CASE_FIXTURE(GuestTasks, "a node that is no task any more is left out, and both sources say so") {
    probe();
    tasks.edit<FakeTask>(kthreadd, [](FakeTask& t) { t.pid = 0x7fffffff; });
    CHECK(names() == "swapper/0 swapper/1 init sh worker sleep");
    CHECK(contains(problems(), "its pid is 2147483647"));
    CHECK(contains(problems(), "pid table: pid 2:"));
}

TEST_CASE_FIXTURE(GuestTasks, "a task that hides from the list is found in the pid table") {
    probe();
    tasks.unlink(kthreadd);
    CHECK(names() == "swapper/0 swapper/1 init sh worker sleep kthreadd");
    CHECK(problems() == "task 2 (kthreadd) is in the pid table only\n");
}

TEST_CASE_FIXTURE(GuestTasks, "a task that hides from the pid table is found in the list") {
    probe();
    tasks.edit<FakePid>(tasks.pid_struct(2), [](FakePid& p) { p.tasks[0] = 0; });
    CHECK(names() == everybody);
    CHECK(problems() == "task 2 (kthreadd) is listed but not in the pid table\n");
}

TEST_CASE_FIXTURE(GuestTasks, "a broken ring of threads") {
    probe();
    tasks.edit<FakeTask>(shell, [](FakeTask& t) { t.thread_node.next = 8; });
    CHECK(names() == everybody);
    CHECK(contains(problems(), "threads of 70 (sh): "));
}

TEST_CASE_FIXTURE(GuestTasks, "a thread group whose signal_struct cannot be read") {
    probe();
    tasks.edit<FakeTask>(shell, [](FakeTask& t) { t.signal = 0xffffc90000000000; });
    // The pid table still has the thread.
    CHECK(names() == "swapper/0 swapper/1 init kthreadd sh sleep worker");
    CHECK(contains(problems(), "threads of 70 (sh): "));
    CHECK(contains(problems(), "task 71 (worker) is in the pid table only"));
}

TEST_CASE_FIXTURE(GuestTasks, "an init_task that is none") {
    probe();
    tasks.edit<FakeTask>(tasks.init_task(), [](FakeTask& t) { t.stack = 12; });
    CHECK(names() == "swapper/1 init kthreadd sh worker sleep");  // from the pid table
    CHECK(contains(problems(), "idle task: no task at"));
}

TEST_CASE_FIXTURE(GuestTasks, "the guest runs a task that is in no list") {
    probe();
    tasks.unlink(last);
    tasks.edit<FakePid>(tasks.pid_struct(80), [](FakePid& p) { p.tasks[0] = 0; });
    tasks.run(1, last);
    const auto refreshed = os->refresh(std::vector{tasks.vcpu(0, tasks.idle(0)), tasks.vcpu(1, last)});
    REQUIRE(refreshed);
    CHECK(task(80).vcpu == 1);
    CHECK(problems().empty());
}

}  // namespace
