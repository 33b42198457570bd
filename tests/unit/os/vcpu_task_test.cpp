#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>

#include "os-awareness/linux/linux.h"
#include "os-awareness/linux/percpu.h"
#include "tests/support/task_builder.h"

namespace {

using namespace exo;
using namespace exo::test;

// Two CPUs: shell runs on 0, editor on 1.
struct GuestCpus {
    GuestBuilder guest;
    TaskBuilder tasks{guest, 2};
    std::uint64_t shell = tasks.add_process({.tid = 1, .comm = "sh"});
    std::uint64_t editor = tasks.add_process({.tid = 2, .comm = "vi"});
    std::uint64_t other = tasks.add_process({.tid = 3, .comm = "cc"});
    std::unique_ptr<os::OsAwareness> os;

    GuestCpus() {
        tasks.run(0, shell);
        tasks.run(1, editor);
        guest.finish();
        os::ProbeFailure failure;
        os = os::linux_probe({guest.memory(), std::vector{tasks.vcpu(0, shell)}, {}}, failure);
        REQUIRE(os != nullptr);
    }
    // pid of the task on each vCPU, "-" for none.
    std::string on(const std::vector<RegisterSet>& vcpus) {
        const auto refreshed = os->refresh(vcpus);
        REQUIRE_MESSAGE(refreshed, (refreshed ? "" : refreshed.error().message));
        std::string text;
        for (VcpuId i = 0; i < vcpus.size(); ++i) {
            const auto it = std::ranges::find(os->tasks(), std::optional{i}, &os::Task::vcpu);
            text += it == os->tasks().end() ? "-" : std::to_string(it->tid);
        }
        check_each_alone(vcpus);
        return text;
    }
    // What is told of one vCPU without the list is never anything but what the list says.
    void check_each_alone(const std::vector<RegisterSet>& vcpus) {
        told.clear();
        for (VcpuId i = 0; i < vcpus.size(); ++i) {
            const auto alone = os->current_task(vcpus[i], i);
            told += alone ? std::to_string(alone->tid) : "-";
            if (!alone) continue;
            const auto it = std::ranges::find(os->tasks(), std::optional{i}, &os::Task::vcpu);
            REQUIRE(it != os->tasks().end());
            CHECK(*alone == *it);
        }
    }
    std::string told;  // by the last on(), as it: of each vCPU without the list
    PhysicalAddress root_of(std::uint64_t process) {
        const auto mm = tasks.get<FakeTask>(process).mm;
        return guest.physical_of(VirtualAddress{tasks.get<FakeMm>(mm).pgd});
    }
    // As a hypervisor that does not tell where the GDT is.
    static RegisterSet no_gdt(RegisterSet registers) {
        registers.set_unavailable(x86::gdt_base);
        return registers;
    }
    static RegisterSet with(RegisterSet registers, RegisterNumber number, std::uint64_t value) {
        registers.set(number, value);
        return registers;
    }
};

TEST_CASE_FIXTURE(GuestCpus, "in the kernel, by GDT or GS base, whatever the order of the vCPUs") {
    CHECK(on({tasks.vcpu(0, shell), tasks.vcpu(1, editor)}) == "12");
    CHECK(on({tasks.vcpu(1, editor), tasks.vcpu(0, shell)}) == "21");
    CHECK(told == "21");
    CHECK(on({no_gdt(tasks.vcpu(1, editor)), no_gdt(tasks.vcpu(0, shell))}) == "21");
    CHECK(told == "21");
    CHECK(os->problems().empty());
}

TEST_CASE_FIXTURE(GuestCpus, "in user mode the kernel's GS base is the other one") {
    CHECK(on({no_gdt(tasks.vcpu_in_user(0, root_of(shell) + 4096, 0x7f00)),
              no_gdt(tasks.vcpu_in_user(1, root_of(editor) + 4096, 0))}) == "12");
    // A user may set any GS base, also another CPU's.
    CHECK(on({no_gdt(tasks.vcpu_in_user(0, root_of(shell) + 4096, tasks.area(1))),
              no_gdt(tasks.vcpu_in_user(1, root_of(editor) + 4096, tasks.area(0)))}) == "12");
    CHECK(told == "12");
}

TEST_CASE_FIXTURE(GuestCpus, "between an entry and swapgs the bases are still the user's way round") {
    auto entry = no_gdt(tasks.vcpu(0, shell));
    entry.set(x86::gs_base, 0x7f00);
    entry.set(x86::k_gs_base, tasks.area(0));
    entry.set(x86::rsp, 0x7ffc12345678);  // syscall leaves the user's stack pointer
    CHECK(on({entry, no_gdt(tasks.vcpu(1, editor))}) == "12");
    // With a user who has put CPU 1's base into his own: the stack decides.
    entry.set(x86::gs_base, tasks.area(1));
    entry.set(x86::rsp, tasks.get<FakeTask>(shell).stack + 0x3ff8);
    CHECK(on({entry, no_gdt(tasks.vcpu(1, editor))}) == "12");
    CHECK(told == "12");
}

TEST_CASE_FIXTURE(GuestCpus, "in the middle of a switch the stack decides") {
    const auto switched = [&](std::uint64_t stack_owner) {
        return std::vector{with(tasks.vcpu(0, shell), x86::rsp,
                                tasks.get<FakeTask>(stack_owner).stack + TaskBuilder::stack_bytes - 0x80)};
    };
    // rq->curr is the next task already, current_task the previous one.
    tasks.edit<FakeRq>(tasks.area(0) + TaskBuilder::runqueues, [&](FakeRq& rq) { rq.curr = other; });
    CHECK(on(switched(shell)) == "1");
    CHECK(told == "1");
    CHECK(on(switched(other)) == "3");
    CHECK(told == "3");
    // Then current_task follows.
    guest.put(VirtualAddress{tasks.area(0) + TaskBuilder::current_task}, other);
    CHECK(on(switched(other)) == "3");
}

TEST_CASE_FIXTURE(GuestCpus, "on an interrupt or exception stack it is the current task") {
    const auto irq_stack = raw(guest.in_heap(16384, 4096)) + 0x3f00;
    CHECK(on({with(tasks.vcpu(0, shell), x86::rsp, irq_stack),
              with(tasks.vcpu(1, editor), x86::rsp, 0xfffffe0000002ff8)}) == "12");
    CHECK(told == "12");
}

TEST_CASE_FIXTURE(GuestCpus, "no GS base of the kernel in sight: by the stack, by the page tables") {
    auto lost = no_gdt(tasks.vcpu(1, editor));
    lost.set(x86::gs_base, 0);
    CHECK(on({lost, tasks.vcpu(0, shell)}) == "21");
    auto user = no_gdt(tasks.vcpu_in_user(1, root_of(editor) + 4096, 0));
    user.set_unavailable(x86::k_gs_base);
    CHECK(on({user, tasks.vcpu(0, shell)}) == "21");
    // Of two threads of one process it can only be guessed, by the number of the vCPU.
    const auto thread = tasks.add_thread(editor, {.tid = 4, .comm = "vi2"});
    tasks.run(0, thread);
    CHECK(on({user, user}) == "42");
}

TEST_CASE_FIXTURE(GuestCpus, "what cannot be told is said") {
    auto lost = no_gdt(tasks.vcpu(1, editor));
    lost.set(x86::gs_base, 0x1234);
    lost.set(x86::rsp, 0xffffc90000000000);
    CHECK(on({tasks.vcpu(0, shell), lost}) == "1-");
    REQUIRE(os->problems().size() == 1);
    CHECK(os->problems()[0] == "vCPU 1: neither its GDT nor its GS base is that of a CPU of this kernel");
    CHECK(on({tasks.vcpu(0, shell), guest.vcpu_in_firmware()}) == "1-");
    CHECK(os->problems()[0] == "vCPU 1: not in long mode");
    CHECK(on({tasks.vcpu(0, shell), tasks.vcpu(0, shell)}) == "1-");
    CHECK(told == "--");
}

TEST_CASE_FIXTURE(GuestCpus, "a CPU whose current task is garbage") {
    std::uint64_t garbage = 0;
    SUBCASE("null") { garbage = 0; }
    SUBCASE("unmapped") { garbage = 0xffffc90000000000; }
    SUBCASE("user address") { garbage = 0x400000; }
    guest.put(VirtualAddress{tasks.area(1) + TaskBuilder::current_task}, garbage);
    tasks.edit<FakeRq>(tasks.area(1) + TaskBuilder::runqueues, [&](FakeRq& rq) { rq.curr = garbage; });
    const auto elsewhere = with(tasks.vcpu(1, editor), x86::rsp, 0xfffffe0000002ff8);
    CHECK(on({tasks.vcpu(0, shell), elsewhere}) == "1-");
    CHECK_FALSE(os->problems().empty());
}

TEST_CASE_FIXTURE(GuestCpus, "before the per-CPU areas are set up") {
    // Every entry is the boot CPU's initial area.
    guest.put(VirtualAddress{tasks.per_cpu_offsets() + 8}, tasks.area(0));
    CHECK(on({tasks.vcpu(0, shell), guest.vcpu_in_firmware()}) == "1-");
    SUBCASE("garbage offsets") {
        guest.put(VirtualAddress{tasks.per_cpu_offsets()}, std::uint64_t{0x0a21646c726f7720});
        guest.put(VirtualAddress{tasks.per_cpu_offsets() + 8}, std::uint64_t{0x6f77206f6c6c6548});
        CHECK(on({tasks.vcpu(0, shell), guest.vcpu_in_firmware()}) == "1-");  // by its stack
        CHECK(os->problems().size() >= 2);
    }
}

TEST_CASE_FIXTURE(GuestCpus, "of two places for the CPU of a task the one that idle tasks agree with") {
    // RHEL 9's 5.14 has both, of which one is not maintained.
    os::StructLayout layout;
    layout.task.cpu = {offsetof(FakeTask, dead_cpu), 4};
    layout.task.cpu_alternative = {offsetof(FakeTask, cpu), 4};
    layout.rq.curr = {offsetof(FakeRq, curr), 8};
    layout.rq.idle = {offsetof(FakeRq, idle), 8};
    os::KernelImage image;
    image.space = std::make_unique<os::PageTables>(guest.memory(), guest.kernel_root(), guest.options().mode);
    for (const auto& s : os->symbols().by_address()) {
        image.symbols.add(s.address, s.type, os->symbols().name(s));
    }
    image.symbols.finish();
    os::PerCpu per_cpu{image, nullptr, layout};
    std::vector<std::string> problems;
    per_cpu.refresh(problems);
    CHECK(per_cpu.cpus().size() == 2);
    CHECK(per_cpu.task_cpu().offset == offsetof(FakeTask, cpu));
}

}  // namespace
