#include "backends/kvm/threads.h"

#include <doctest/doctest.h>

using namespace exo::kvm;

TEST_CASE("kvm: /proc/PID/task/TID/syscall") {
    const auto run = parse_syscall("16 0x5 0xae80 0x0 0x7f3710435d50 0x7f3704000030 0x0 0x7ffe 0x7f37\n");
    CHECK(run.state == SystemCall::State::in_call);
    CHECK(run.number == 16);
    CHECK(run.arguments[0] == 5);
    CHECK(run.arguments[1] == 0xae80);
    CHECK(parse_syscall("running\n").state == SystemCall::State::running);
    // Stopped, and in no call: number, stack and instruction pointer alone.
    CHECK(parse_syscall("-1 0x7ffd 0x7f37\n").state == SystemCall::State::unknown);
    CHECK(parse_syscall("").state == SystemCall::State::unknown);
    CHECK(parse_syscall("garbage").state == SystemCall::State::unknown);
}
