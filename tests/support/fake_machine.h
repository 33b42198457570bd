// A machine with a fake target and a fake kernel in it, for tests of stub/.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <spdlog/spdlog.h>

#include "stub/machine.h"
#include "tests/support/fake_os.h"
#include "tests/support/fake_target.h"

namespace exo::test {

struct FakeMachine {
    explicit FakeMachine(FakeMachineShape shape = {}) {
        spdlog::set_level(spdlog::level::off);
        auto made = std::make_unique<FakeTarget>(std::move(shape));
        target = made.get();
        machine = std::make_unique<stub::Machine>(std::move(made), fake_probe(kernel));
    }

    os::Task& add_task(std::uint32_t tid, std::string comm, std::optional<VcpuId> vcpu = std::nullopt) {
        os::Task task;
        task.address = VirtualAddress{0xffff888000000000 + 0x1000 * (kernel.tasks.size() + 1)};
        task.tid = task.tgid = tid;
        task.comm = task.process = std::move(comm);
        task.state = vcpu ? 'R' : 'S';
        task.vcpu = vcpu;
        kernel.present = true;
        return kernel.tasks.emplace_back(std::move(task));
    }
    void save(const os::Task& task, std::uint64_t rip, std::uint64_t rsp) {
        RegisterSet registers{x86::layout()};
        registers.set(x86::rip, rip);
        registers.set(x86::rsp, rsp);
        kernel.saved.insert_or_assign(task.address, registers);
    }
    // tid comes to run on vcpu, in place of who is there.
    void switch_to(std::uint32_t tid, VcpuId vcpu) {
        for (os::Task& task : kernel.tasks) {
            if (task.vcpu == vcpu) task.vcpu.reset();
            if (task.tid == tid) task.vcpu = vcpu;
        }
    }

    FakeKernel kernel;
    FakeTarget* target = nullptr;  // owned by machine
    std::unique_ptr<stub::Machine> machine;
};

using Log = std::vector<std::string>;

}  // namespace exo::test
