#include "os-awareness/linux/linux.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>

#include "tests/support/task_builder.h"

namespace {

using namespace exo;
using namespace exo::test;

struct LinuxGuest {
    GuestBuilder guest;
    TaskBuilder tasks;
    std::uint64_t init = 0, shell = 0, kernel_thread = 0;
    std::unique_ptr<os::OsAwareness> os;

    explicit LinuxGuest(bool btf = true) : tasks{guest, 2, btf} {
        init = tasks.add_process({.tid = 1, .comm = "init"});
        kernel_thread = tasks.add_process({.tid = 2, .comm = "kthreadd", .user = false});
        shell = tasks.add_process({.tid = 3, .comm = "sh"});
        guest.symbol(0, 'A', "__per_cpu_start");
        guest.symbol(TaskBuilder::area_bytes, 'A', "__per_cpu_end");
        guest.finish();
        os::ProbeFailure failure;
        os = os::linux_probe({guest.memory(), idle_vcpus(), {}}, failure);
        REQUIRE(os != nullptr);
    }
    std::vector<RegisterSet> idle_vcpus() const {
        return {tasks.vcpu(0, tasks.idle(0)), tasks.vcpu(1, tasks.idle(1))};
    }
    void refresh(const std::vector<RegisterSet>& vcpus) {
        const auto refreshed = os->refresh(vcpus);
        REQUIRE_MESSAGE(refreshed, (refreshed ? "" : refreshed.error().message));
    }
    const os::Task& task(std::uint64_t address) {
        const auto it = std::ranges::find(os->tasks(), VirtualAddress{address}, &os::Task::address);
        REQUIRE(it != os->tasks().end());
        return *it;
    }
    std::string finding(std::string_view what) {
        const auto it = std::ranges::find(os->findings(), what, &os::Finding::what);
        return it == os->findings().end() ? "" : it->value + " | " + it->how;
    }
    PhysicalAddress root_of(std::uint64_t process) {
        const auto mm = tasks.get<FakeTask>(process).mm;
        return guest.physical_of(VirtualAddress{tasks.get<FakeMm>(mm).pgd});
    }
};

TEST_CASE_FIXTURE(LinuxGuest, "who it is, and how that was found") {
    CHECK(os->name() == "linux");
    CHECK(os->version() == "6.12.1-test");
    CHECK(os->slide() == 0x1c000000);
    for (const auto* what :
         {"os", "version", "slide", "linux_banner", "paging_levels", "btf", "kallsyms", "tasks"}) {
        const auto count = std::ranges::count(os->findings(), what, &os::Finding::what);
        CHECK_MESSAGE(count == 1, what);
    }
    CHECK(finding("os").starts_with("linux | "));
    CHECK(finding("version").starts_with("6.12.1-test | "));
    CHECK(finding("slide").starts_with("0x1c000000 | "));
    CHECK(finding("linux_banner").starts_with(hex(guest.banner()) + " | "));
    CHECK(finding("paging_levels").starts_with("4 | "));
    CHECK(finding("tasks").starts_with("known | "));
}

TEST_CASE("without BTF it says so, and finds the tasks by what must be so") {
    LinuxGuest g{false};
    CHECK(g.finding("btf") == "none | no symbol __start_BTF: a kernel without CONFIG_DEBUG_INFO_BTF");
    CHECK(g.finding("tasks").starts_with("known | init_task, structures by init_task and its neighbours"));
    g.refresh(g.idle_vcpus());
    CHECK(g.os->tasks().size() == 5);
    CHECK(g.task(g.shell).comm == "sh");
    CHECK(g.task(g.tasks.idle(1)).vcpu == 1);
}

TEST_CASE_FIXTURE(LinuxGuest, "a sleeping user task has the registers that the switch saved, and no others") {
    refresh(idle_vcpus());
    const auto registers = os->saved_registers(task(init));
    REQUIRE(registers);
    const auto sp = tasks.get<FakeTask>(init).thread.sp;
    CHECK(registers->get(x86::rip) == tasks.in_schedule());
    CHECK(registers->get(x86::rsp) == sp + sizeof(FakeFrame));
    CHECK(registers->get(x86::rbp) == sp + 0x100);
    CHECK(registers->get(x86::rbx) == 0xb0b);
    CHECK(registers->get(x86::r12) == 0xc12);
    CHECK(registers->get(x86::r13) == 0xd13);
    CHECK(registers->get(x86::r14) == 0xe14);
    CHECK(registers->get(x86::r15) == 0xf15);
    CHECK(registers->get(x86::fs_base) == 0x7f0000000001);
    CHECK(registers->get(x86::k_gs_base) == 0x100001);
    for (const auto number : {x86::rax, x86::rcx, x86::rdx, x86::rsi, x86::rdi, x86::r8, x86::r11,
                              x86::eflags, x86::gs_base, x86::cr3}) {
        CHECK_FALSE(registers->available(number));
    }
    const auto kernel = os->saved_registers(task(kernel_thread));
    REQUIRE(kernel);
    CHECK_FALSE(kernel->available(x86::fs_base));
    CHECK_FALSE(kernel->available(x86::k_gs_base));
}

TEST_CASE_FIXTURE(LinuxGuest, "where a CPU has its own of a per-CPU variable") {
    refresh(idle_vcpus());
    CHECK(os->per_cpu_offset(1) == tasks.area(1));
    CHECK(os->per_cpu_offset(2).error().code == Errc::not_found);
    const VirtualAddress runqueues{TaskBuilder::runqueues};
    CHECK(os->per_cpu_variable("runqueues") == runqueues);
    CHECK(os->per_cpu_variable(runqueues + 8) == runqueues + 8);
    // As a debugger has it that has loaded a whole vmlinux at the slide.
    CHECK(os->per_cpu_variable(runqueues + os->slide()) == runqueues);
    CHECK(os->per_cpu_variable("init_task").error().code == Errc::not_found);
    CHECK(os->per_cpu_variable("nothing").error().code == Errc::not_found);
    CHECK(os->per_cpu_variable(VirtualAddress{TaskBuilder::area_bytes}).error().code == Errc::not_found);
}

TEST_CASE_FIXTURE(LinuxGuest, "without ORC there is one frame, and it says so; without a log, no log") {
    refresh(idle_vcpus());
    const auto registers = os->saved_registers(task(init));
    REQUIRE(registers);
    const auto trace = os->backtrace(*registers);
    CHECK(trace.frames.size() == 1);
    CHECK(trace.broken.starts_with("no symbols of ORC tables"));
    CHECK(os->kernel_log().error().code == Errc::not_found);
}

TEST_CASE_FIXTURE(LinuxGuest, "a running task has no saved registers") {
    refresh(idle_vcpus());
    CHECK(os->saved_registers(task(tasks.idle(0))).error().code == Errc::bad_request);
    // It runs on a CPU whose vCPU is not told apart: what it saved last is stale.
    tasks.run(1, shell);
    refresh({tasks.vcpu(0, tasks.idle(0))});
    CHECK(os->saved_registers(task(shell)).error().code == Errc::bad_data);
}

TEST_CASE_FIXTURE(LinuxGuest, "a task whose stack is gone or wrong gives an error that says so") {
    auto expected = "";
    SUBCASE("zombie") {
        tasks.edit<FakeTask>(shell, [](FakeTask& t) {
            t.stack = 0;
            t.exit_state = 0x20;
        });
        expected = "task 3 (sh) has exited and its kernel stack is freed: no registers";
    }
    SUBCASE("stack pointer elsewhere") {
        tasks.edit<FakeTask>(shell, [](FakeTask& t) { t.thread.sp = t.stack - 8; });
        expected = "task 3 (sh): saved stack pointer";
    }
    SUBCASE("stack pointer at the very top") {
        tasks.edit<FakeTask>(shell,
                             [](FakeTask& t) { t.thread.sp = t.stack + TaskBuilder::stack_bytes - 8; });
        expected = "task 3 (sh): saved stack pointer";
    }
    SUBCASE("return address is no code") {
        tasks.edit<FakeFrame>(tasks.get<FakeTask>(shell).thread.sp, [](FakeFrame& f) { f.ret_addr = 5; });
        expected = "task 3 (sh): its saved frame returns to 0x5";
    }
    SUBCASE("unreadable stack") {
        tasks.edit<FakeTask>(shell, [](FakeTask& t) {
            t.stack = 0xffffc90000000000;
            t.thread.sp = t.stack + 0x3000;
        });
        expected = "cannot read address 0xffffc90000003000";
    }
    refresh(idle_vcpus());
    const auto registers = os->saved_registers(task(shell));
    REQUIRE_FALSE(registers);
    CHECK_MESSAGE(registers.error().message.starts_with(expected), registers.error().message);
    CHECK(raw(task(shell).wchan) == 0);
}

TEST_CASE_FIXTURE(LinuxGuest, "task_space: the kernel's half by its own root, the user's by the task's") {
    refresh(idle_vcpus());
    const auto page = guest.in_heap(4096, 4096);
    guest.put_text(page, "user data");
    guest.map(root_of(shell), VirtualAddress{0x400000}, guest.physical_of(page), 4096, true);
    const auto space = os->task_space(task(shell));
    REQUIRE(space);
    CHECK((*space)->read_string(VirtualAddress{0x400000}, 9) == "user data");
    CHECK((*space)->read_string(guest.banner(), 13) == "Linux version");
    const auto kernel = os->task_space(task(kernel_thread));
    REQUIRE(kernel);
    CHECK((*kernel)->read_string(guest.banner(), 13) == "Linux version");
    CHECK((*kernel)->translate(VirtualAddress{0x400000}).error().code == Errc::bad_address);
}

TEST_CASE_FIXTURE(LinuxGuest, "refresh notices that the kernel is gone") {
    SUBCASE("the banner is overwritten") { guest.put_text(guest.banner(), "Windows"); }
    SUBCASE("after a reset its bytes are left in RAM, but no vCPU uses it") {
        CHECK(os->refresh(std::vector{guest.vcpu_in_firmware(), guest.vcpu_in_firmware()}).error().code ==
              Errc::not_found);
        return;
    }
    SUBCASE("its page tables are wiped") {
        std::ranges::fill(guest.memory().bytes(guest.kernel_root(), 4096), std::byte{0});
    }
    CHECK(os->refresh(idle_vcpus()).error().code == Errc::not_found);
    CHECK(os->tasks().empty());
}

TEST_CASE_FIXTURE(LinuxGuest, "one vCPU in the kernel is enough for it to be there") {
    refresh({guest.vcpu_in_firmware(), tasks.vcpu(1, tasks.idle(1))});
    CHECK(task(tasks.idle(1)).vcpu == 1);
    CHECK_FALSE(task(tasks.idle(0)).vcpu);
}

TEST_CASE_FIXTURE(LinuxGuest, "a vCPU in user mode under KPTI still shows that it is there") {
    tasks.run(0, shell);
    refresh({tasks.vcpu_in_user(0, root_of(shell) + 4096, 0), guest.vcpu_in_firmware()});
    CHECK(task(shell).vcpu == 0);
}

}  // namespace
