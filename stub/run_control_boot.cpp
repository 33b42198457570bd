// The part of RunControl for guests whose kernel is not there yet, and for what else has to be seen while a
// guest runs: a breakpoint that waits for its page.
//
// Where a kernel will be is decided by its decompressor, and when a client could be told of it the first
// functions have run. So while no OS is recognised, and the client wants to know, the vCPU that boots is
// looked at now and then. Once it is in a decompressor, the jump at its end gets a breakpoint of ours; from
// there the vCPU is stepped until it executes the kernel at its own addresses, a few thousand instructions
// after it began.
#include <spdlog/spdlog.h>

#include <algorithm>

#include "backends/arch/x86_64.h"
#include "os-awareness/handover.h"
#include "stub/run_control.h"

namespace exo::stub {
namespace {

using namespace std::chrono_literals;

constexpr VcpuId boot_vcpu = 0;
// A kernel that is there, but cannot be recognised yet, is looked for again after this.
constexpr auto look_again = 500ms;
constexpr auto try_pending_again = 200ms;
// After which a stop is not taken for one that we asked for.
constexpr auto own_stop_limit = 2s;
// From the decompressor's jump to the kernel's own addresses; some 10,000 were seen.
constexpr int most_steps = 200'000;
// Where it cannot be recognised at its first instruction there.
constexpr int steps_between_looks = 500;
constexpr int most_looks = 20;

bool outside_long_mode(const RegisterSet& registers) {
    return (registers.get(x86::efer).value_or(x86::efer_lma) & x86::efer_lma) == 0;
}

}  // namespace

// CS has a base outside long mode, where breakpoints are at linear addresses and rip is within the segment.
Result<VirtualAddress> RunControl::linear_pc(VcpuId vcpu) {
    const RegisterSet* registers = TRY(machine_.vcpu_registers(vcpu));
    if (machine_.os() != nullptr || !outside_long_mode(*registers))
        return VirtualAddress{registers->get(x86::rip).value_or(0)};
    registers = TRY(machine_.all_vcpu_registers(vcpu));
    return VirtualAddress{(registers->get(x86::cs_base).value_or(0) + registers->get(x86::rip).value_or(0)) &
                          0xffff'ffffU};
}

// A client steps over a breakpoint where it sees one at its pc. With a base in CS it sees none there.
Result<void> RunControl::step_off_hidden_breakpoints() {
    if (machine_.os() != nullptr || breakpoints.all().empty()) return {};
    for (VcpuId vcpu = 0; vcpu < actions_.size() && !queued_; ++vcpu) {
        if (actions_[vcpu] != VcpuAction::run) continue;
        const auto pc = TRY(linear_pc(vcpu));
        const bool hidden = TRY(machine_.vcpu_registers(vcpu))->get(x86::rip) != raw(pc);
        if (hidden && breakpoints.any_at(pc)) CHECK_OK(step_over(vcpu, pc));
    }
    return {};
}

// gdb ignores a stop for a breakpoint that it does not see at its pc (infrun.c, handle_signal_stop(),
// "delayed hardware breakpoint trap, ignoring"): it is told of a trap, and its user of the place.
RunControl::Stop RunControl::hidden_breakpoint(VirtualAddress pc) {
    return {.note = "the breakpoint at " + hex(pc) + " was hit; $pc is relative to the base of CS"};
}

bool RunControl::watches_boot() const {
    return boot_.wanted && machine_.os() == nullptr &&
           std::ranges::all_of(actions_, [](VcpuAction action) { return action == VcpuAction::run; });
}

std::chrono::milliseconds RunControl::patience(std::chrono::milliseconds limit) const {
    constexpr std::chrono::milliseconds between_looks{20};  // decompression takes 60 ms and more
    return watches_boot() ? std::min(limit, between_looks) : limit;
}

void RunControl::ask_for_stop() {
    boot_.own_stop = Clock::now();
    machine_.target().execution()->interrupt();
}

bool RunControl::is_own_stop(const StopEvent& event) const {
    return boot_.own_stop && event.cause == StopEvent::Cause::interrupt && !interrupted_ &&
           Clock::now() - *boot_.own_stop < own_stop_limit;
}

// Nothing has happened for a while. What cannot be read of a guest that runs is looked at in a stop.
void RunControl::look_while_running() {
    const auto now = Clock::now();
    if (interrupted_ || (boot_.own_stop && now - *boot_.own_stop < own_stop_limit)) return;
    if (now < boot_.next_look) return;
    if (!watches_boot()) {
        if (!breakpoints.worth_another_try()) return;
        boot_.next_look = now + try_pending_again;
        return ask_for_stop();
    }
    const auto registers = machine_.target().read_registers(boot_vcpu);
    if (!registers) {
        if (registers.error().code == Errc::busy) ask_for_stop();
        return;
    }
    const auto jump = os::find_handover(machine_.target().memory(), *registers);
    if (os::executes_kernel(*registers) || (jump && jump != boot_.jump)) ask_for_stop();
}

// Unseen by the client, unless a kernel is found.
Result<std::optional<RunControl::Stop>> RunControl::after_own_stop() {
    boot_.own_stop.reset();
    if (watches_boot()) {
        const RegisterSet& registers = *TRY(machine_.vcpu_registers(boot_vcpu));
        if (os::executes_kernel(registers)) return look_for_kernel();
        const auto jump = os::find_handover(machine_.target().memory(), registers);
        if (jump && jump != boot_.jump) await_kernel(*jump);
    }
    CHECK_OK(breakpoints.settle());
    CHECK_OK(run());
    return std::nullopt;
}

void RunControl::await_kernel(VirtualAddress jump) {
    leave_boot();
    if (auto inserted = breakpoints.insert_internal(jump); !inserted) {
        spdlog::warn("the kernel's first instructions will be missed: {}", inserted.error().message);
        return;
    }
    spdlog::debug("a decompressor runs; it jumps into the kernel at {}", hex(jump));
    boot_.jump = jump;
}

void RunControl::leave_boot() {
    if (boot_.jump) breakpoints.remove_internal(*boot_.jump);
    boot_.jump.reset();
}

// From the decompressor's jump on.
Result<std::optional<RunControl::Stop>> RunControl::enter_kernel(VcpuId vcpu) {
    leave_boot();
    CHECK_OK(breakpoints.settle());
    int next_look = 0, looks = 0;
    for (int steps = 0; steps < most_steps && !interrupted_; ++steps) {
        const auto event = TRY(step_alone(vcpu));
        if (event.cause != StopEvent::Cause::step) {
            queued_ = event;
            return std::nullopt;
        }
        if (steps < next_look || !os::executes_kernel(*TRY(machine_.vcpu_registers(vcpu)))) continue;
        spdlog::debug("the kernel is at its own addresses after {} steps", steps + 1);
        CHECK_OK(machine_.look());
        if (machine_.os() != nullptr || looks++ == most_looks) return look_for_kernel();
        for (const auto& tried : machine_.probe_failure().steps) spdlog::debug("{}", tried);
        next_look = steps + steps_between_looks;
    }
    if (interrupted_) return interrupted(vcpu);
    CHECK_OK(run());
    return std::nullopt;
}

// A stop that says no more than that there is a kernel: gdb looks for its symbols then, and resumes
// (infrun.c, TARGET_WAITKIND_LOADED).
Result<std::optional<RunControl::Stop>> RunControl::look_for_kernel() {
    CHECK_OK(machine_.look());
    new_epoch();
    if (machine_.os() != nullptr) {
        leave_boot();
        return Stop{.thread = resumed_thread(boot_vcpu).tid, .reason = rsp::StopReply::Reason::library};
    }
    boot_.next_look = Clock::now() + look_again;
    CHECK_OK(run());
    return std::nullopt;
}

}  // namespace exo::stub
