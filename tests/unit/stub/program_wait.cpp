// A program is waited for: which counts, what is refused, and what is left in the guest.
#include "stub/program_wait.h"

#include <doctest/doctest.h>

#include "tests/support/fake_machine.h"

using namespace exo;
using namespace exo::stub;
using namespace exo::test;
using Cause = StopEvent::Cause;

namespace {

constexpr std::uint64_t start_thread_at = FakeKernel::text + 0x500, begun_at = FakeKernel::text + 0xa00;
constexpr std::uint64_t awaited_stack = FakeKernel::text + 0x3000, program_entry = 0x401100,
                        program_stack = 0x7ffe0000;

struct Awaited {
    explicit Awaited(FakeMachineShape shape = {}) : fake(std::move(shape)) {
        fake.kernel.tasks.reserve(4);
        fake.add_task(1, "init", 0);
        task = &fake.add_task(64, "sh", 1);
        fake.kernel.symbols.add(VirtualAddress{start_thread_at}, 'T', "start_thread");
        fake.kernel.symbols.finish();
        std::ranges::copy(std::as_bytes(std::span{&begun_at, 1}), fake.target->ram().at(0x3000, 8).begin());
        RegisterSet user{x86::layout()};
        user.set(x86::rip, program_entry);
        user.set(x86::rsp, program_stack);
        fake.kernel.user.insert_or_assign(task->address, user);
    }

    void at(Cause cause, VcpuId vcpu, std::uint64_t rip, std::uint64_t rsp, const std::string& comm = {}) {
        fake.target->script({.cause = cause, .vcpu = vcpu}, [this, vcpu, rip, rsp, comm] {
            fake.target->set(vcpu, x86::rip, rip);
            fake.target->set(vcpu, x86::rsp, rsp);
            fake.target->set(vcpu, x86::cs, rip == program_entry ? 0x33 : 0x10);
            if (!comm.empty()) task->comm = task->process = comm;
        });
    }
    // A program of that name begins, as far as its first instruction.
    void begins(const std::string& comm) {
        at(Cause::breakpoint, 1, start_thread_at, awaited_stack, comm);
        at(Cause::step, 1, start_thread_at + 4, awaited_stack);
        at(Cause::breakpoint, 1, begun_at, awaited_stack);
        at(Cause::breakpoint, 1, program_entry, program_stack);
    }
    Result<std::optional<std::int64_t>> wait(const std::string& name) {
        ProgramWait waiting{*fake.machine, name, [this](std::string_view line) { told.emplace_back(line); }};
        in_wait = &waiting;
        return waiting.run();
    }
    // As found: it runs, with nothing in it.
    void unharmed() {
        CHECK(fake.target->is_running());
        CHECK(fake.target->inserted().empty());
    }
    std::string refusal(const std::string& name) {
        const auto refused = wait(name);
        REQUIRE_FALSE(refused.has_value());
        CHECK(refused.error().message.find('\n') == std::string::npos);
        return refused.error().message;
    }

    FakeMachine fake;
    os::Task* task = nullptr;
    std::vector<std::string> told;
    ProgramWait* in_wait = nullptr;
};

}  // namespace

TEST_CASE("a program is called what the kernel calls it, or its file") {
    struct Case {
        const char *comm, *path, *name;
        bool is;
    };
    for (const Case& c :
         {Case{"sshd", "/usr/sbin/sshd", "sshd", true}, Case{"sshd", "", "sshd", true},
          Case{"backup", "/bin/dash", "backup", true},  // a script
          Case{"backup", "/bin/dash", "dash", true}, Case{"sshd", "/usr/sbin/sshd", "ssh", false},
          Case{"systemd-journal", "/lib/systemd/systemd-journald", "systemd-journald", true},
          Case{"systemd-journal", "/lib/systemd/systemd-journald", "systemd-journal", true},
          Case{"systemd-journal", "/bin/systemd-journal-remote", "systemd-journald", false},
          Case{"systemd-journal", "", "systemd-journald", true},
          Case{"systemd-journal", "/bin/dash", "systemd-journald", true},
          Case{"3", "/bin/true", "true", true},  // fexecve(3)
          Case{"", "", "sshd", false}, Case{"", "", "", false}}) {
        CAPTURE(std::string{c.comm});
        CAPTURE(std::string{c.path});
        CAPTURE(std::string{c.name});
        CHECK(is_program(c.comm, c.path, c.name) == c.is);
    }
}

TEST_CASE("others begin and are let go; it stands at its first instruction, with nothing left in the guest") {
    Awaited f;
    f.at(Cause::breakpoint, 1, start_thread_at, awaited_stack, "ls");
    f.at(Cause::step, 1, start_thread_at + 4, awaited_stack);
    f.begins("sshd");
    const auto process = f.wait("sshd");
    REQUIRE(process.has_value());
    CHECK(*process == 64);
    CHECK_FALSE(f.fake.target->is_running());
    CHECK(f.fake.target->scripted() == 0);
    CHECK(f.fake.target->inserted().empty());
    CHECK(f.told == std::vector<std::string>{"waiting for a program called sshd to begin; ^C ends that"});
}

TEST_CASE("what is there already is named, and does not count") {
    Awaited f;
    f.fake.target->in_next_wait([&] { f.in_wait->stop(); });
    const auto process = f.wait("init");
    REQUIRE(process.has_value());
    CHECK_FALSE(process->has_value());
    CHECK(f.told.front().starts_with("init is there already, which is not what is waited for: 1;"));
    f.unharmed();
}

TEST_CASE("the end of the waiting leaves the guest as it was found") {
    Awaited f;
    SUBCASE("while others begin") {
        f.at(Cause::breakpoint, 1, start_thread_at, awaited_stack, "ls");
        f.fake.target->script({.cause = Cause::step, .vcpu = 1}, [&] {
            f.fake.target->set(1, x86::rip, start_thread_at + 4);
            f.in_wait->stop();
        });
    }
    SUBCASE("before it is in user mode") {
        f.at(Cause::breakpoint, 1, start_thread_at, awaited_stack, "sshd");
        f.at(Cause::step, 1, start_thread_at + 4, awaited_stack);
        f.at(Cause::breakpoint, 1, begun_at, awaited_stack);
        f.fake.target->script({.cause = Cause::breakpoint, .vcpu = 1}, [&] {
            f.fake.target->set(1, x86::rip, begun_at);
            f.in_wait->stop();
        });
    }
    const auto process = f.wait("sshd");
    REQUIRE(process.has_value());
    CHECK_FALSE(process->has_value());
    f.unharmed();
}

TEST_CASE("one line says why nothing can be waited for") {
    SUBCASE("a dump") {
        Awaited f{{.execution = false}};
        CHECK(f.refusal("sshd") ==
              "cannot wait for sshd: fake machine cannot be run and stopped, so no program begins there");
    }
    SUBCASE("a guest that is paused") {
        Awaited f;
        REQUIRE(f.fake.target->attach().has_value());
        CHECK(f.refusal("sshd") ==
              "cannot wait for sshd: the guest is paused, so no program begins there; let it run first");
        CHECK_FALSE(f.fake.target->is_running());
    }
    SUBCASE("a kernel that does not show where programs begin") {
        Awaited f;
        f.fake.kernel.symbols = {};
        CHECK(f.refusal("sshd") ==
              "cannot wait for sshd: this kernel has no start_thread, so it is not seen when programs begin");
        f.unharmed();
    }
    SUBCASE("a guest that somebody pauses") {
        Awaited f;
        f.fake.target->script({.cause = Cause::interrupt});
        CHECK(f.refusal("sshd") == "the guest was paused before sshd began");
    }
    SUBCASE("a guest that ends") {
        Awaited f;
        f.fake.target->script({.cause = Cause::exited});
        CHECK(f.refusal("sshd") == "the guest has ended before sshd began");
    }
}

TEST_CASE("a kernel that is not there yet is waited for first") {
    Awaited f;
    f.fake.kernel.present = false;
    f.fake.target->in_next_wait([&] {
        CHECK(f.told ==
              std::vector<std::string>{"no operating system is recognised yet: its kernel is waited for"});
        f.in_wait->stop();
    });
    REQUIRE(f.wait("sshd").has_value());
    f.unharmed();
}
