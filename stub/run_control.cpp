#include "stub/run_control.h"

#include <algorithm>

#include "backends/arch/x86_64.h"

namespace exo::stub {
namespace {

using Reason = rsp::StopReply::Reason;
using Kind = rsp::ResumeAction::Kind;

// One instruction of one vCPU with all others held; a machine that does not come back from it is broken.
constexpr std::chrono::seconds step_over_limit{5};

// The same for as long as the same task runs in the same mode: kernel stacks are 16 KiB and aligned to that
// (THREAD_SIZE, arch/x86/include/asm/page_64_types.h), user mode has its page tables.
std::uint64_t task_fingerprint(const RegisterSet& registers) {
    constexpr std::uint64_t stack_mask = ~std::uint64_t{0x3fff};
    const bool user = (registers.get(x86::cs).value_or(0) & 3U) == 3;
    return user ? registers.get(x86::cr3).value_or(0) | 1U : registers.get(x86::rsp).value_or(0) & stack_mask;
}

bool matches(const rsp::ThreadId& pattern, const rsp::ThreadId& id) {
    const bool pid = pattern.pid == rsp::ThreadId::all || pattern.pid == rsp::ThreadId::any ||
                     pattern.pid == id.pid;
    const bool tid = pattern.tid == rsp::ThreadId::all || pattern.tid == rsp::ThreadId::any ||
                     pattern.tid == id.tid;
    return pid && tid;
}

Reason reason_of(StopEvent::Cause cause) {
    switch (cause) {
        case StopEvent::Cause::write_watch: return Reason::watch;
        case StopEvent::Cause::read_watch: return Reason::rwatch;
        case StopEvent::Cause::access_watch: return Reason::awatch;
        default: return Reason::none;
    }
}

}  // namespace

ThreadMap& RunControl::threads() {
    if (threads_epoch_ != epoch_) {
        // Errors here are of a target that is gone; the next access to it says so.
        if (machine_.look_once()) threads_.rebuild(machine_, vcpus_only_);
        threads_epoch_ = epoch_;
    }
    return threads_;
}

Result<void> RunControl::resume(const rsp::Resume& request) {
    interrupted_ = false;  // one that came after the last stop
    threads();             // as they are now: what the actions name
    request_ = request;
    step_.reset();
    CHECK_OK(plan());
    CHECK_OK(breakpoints.settle());
    return run();
}

// From the client's threads to vCPUs.
Result<void> RunControl::plan() {
    const std::uint32_t vcpus = machine_.target().vcpu_count();
    actions_.assign(vcpus, VcpuAction::hold);
    for (const Thread& thread : threads().threads()) {
        const rsp::ResumeAction* action = action_for(thread);
        if (action == nullptr || action->kind == Kind::stop) continue;
        const bool steps = action->kind == Kind::step || action->kind == Kind::range_step;
        if (thread.vcpu) actions_.at(*thread.vcpu) = steps ? VcpuAction::step : VcpuAction::run;
        if (!steps || step_) continue;
        step_ = Step{.thread = thread.tid};
        if (action->kind == Kind::range_step) {
            step_->range_start = action->range_start;
            step_->range_end = action->range_end;
        }
        if (thread.vcpu) {
            step_->vcpu = *thread.vcpu;
            step_->stack = task_fingerprint(*TRY(machine_.vcpu_registers(*thread.vcpu)));
        } else {
            CHECK_OK(wait_for_task(thread.tid));
        }
    }
    // A resumed task that no vCPU runs can only come to run if some vCPU does.
    if (std::ranges::all_of(actions_, [](VcpuAction a) { return a == VcpuAction::hold; })) {
        std::ranges::fill(actions_, VcpuAction::run);
    }
    return {};
}

Result<void> RunControl::run() {
    machine_.forget();
    ++epoch_;
    return machine_.target().execution()->resume(actions_);
}

const rsp::ResumeAction* RunControl::action_for(const Thread& thread) const {
    const auto it = std::ranges::find_if(
        request_.actions, [&](const rsp::ResumeAction& action) { return matches(action.thread, thread.id()); });
    return it == request_.actions.end() ? nullptr : &*it;
}

void RunControl::interrupt() noexcept {
    interrupted_ = true;
    machine_.target().execution()->interrupt();
}

Result<std::optional<RunControl::Stop>> RunControl::poll(std::chrono::milliseconds limit) {
    auto event = TRY(machine_.target().execution()->wait_for_stop(limit));
    if (!event) return std::nullopt;
    machine_.forget();
    ++epoch_;
    auto stop = handle(*event);
    if (!stop || *stop) end();
    return stop;
}

void RunControl::end() {
    if (wakeup_) breakpoints.remove_internal(wakeup_->address);
    wakeup_.reset();
    step_.reset();
    interrupted_ = false;
}

Result<std::optional<RunControl::Stop>> RunControl::handle(const StopEvent& event) {
    using Cause = StopEvent::Cause;
    if (event.cause == Cause::exited) return Stop{.exited = true};
    if (interrupted_ || event.cause == Cause::interrupt || event.cause == Cause::none) {
        return Stop{.thread = any_resumed(event.vcpu), .signal = rsp::Signal::interrupt};
    }
    if (event.cause == Cause::step) return handle_step(event);
    if (event.cause == Cause::breakpoint || event.cause == Cause::hardware_breakpoint) {
        return handle_breakpoint(event);
    }
    return report(event, {.reason = reason_of(event.cause), .watch_address = event.address});
}

Result<std::optional<RunControl::Stop>> RunControl::handle_step(const StopEvent& event) {
    if (!step_ || event.vcpu != step_->vcpu) return report(event, {});
    const RegisterSet& registers = *TRY(machine_.vcpu_registers(event.vcpu));
    const std::uint64_t pc = registers.get(x86::rip).value_or(0);
    if (task_fingerprint(registers) != step_->stack) {
        const Thread* now = threads().on_vcpu(event.vcpu);
        if (now == nullptr || now->tid != step_->thread) {
            if (threads().find(step_->thread) == nullptr) return report(event, {});  // it exited
            CHECK_OK(wait_for_task(step_->thread));
            std::ranges::fill(actions_, VcpuAction::run);
            CHECK_OK(run());
            return std::nullopt;
        }
        step_->stack = task_fingerprint(registers);
    }
    const bool in_range = pc >= step_->range_start && pc < step_->range_end;
    if (!in_range) return report(event, {});
    if (const auto kind = breakpoints.client_breakpoint_at(VirtualAddress{pc})) {
        return report(event, {.reason = *kind == BreakpointKind::software ? Reason::swbreak : Reason::hwbreak});
    }
    CHECK_OK(run());
    return std::nullopt;
}

Result<std::optional<RunControl::Stop>> RunControl::handle_wakeup(const StopEvent& event) {
    const RegisterSet& registers = *TRY(machine_.vcpu_registers(event.vcpu));
    // Every task that was switched away goes on at the same instruction; its stack tells which it is.
    if (registers.get(x86::rsp) != wakeup_->stack_pointer) return std::nullopt;
    return Stop{.thread = wakeup_->thread};
}

Result<std::optional<RunControl::Stop>> RunControl::handle_breakpoint(const StopEvent& event) {
    const RegisterSet& registers = *TRY(machine_.vcpu_registers(event.vcpu));
    const VirtualAddress pc{registers.get(x86::rip).value_or(0)};
    if (wakeup_ && wakeup_->address == pc) {
        if (auto stop = TRY(handle_wakeup(event))) return stop;
    }
    if (const auto kind = breakpoints.client_breakpoint_at(pc)) {
        return report(event, {.reason = *kind == BreakpointKind::software ? Reason::swbreak : Reason::hwbreak});
    }
    if (breakpoints.any_at(pc)) {  // run control's own, hit by another task
        CHECK_OK(step_over(event.vcpu, pc));
        CHECK_OK(run());
        return std::nullopt;
    }
    return report(event, {});
}

// The stop is the client's if it resumed the thread; else the guest goes on as if nothing had been.
Result<std::optional<RunControl::Stop>> RunControl::report(const StopEvent& event, Stop stop) {
    const Thread* thread = threads().on_vcpu(event.vcpu);
    if (thread != nullptr && action_for(*thread) != nullptr) {
        stop.thread = thread->tid;
        return stop;
    }
    const RegisterSet& registers = *TRY(machine_.vcpu_registers(event.vcpu));
    const VirtualAddress pc{registers.get(x86::rip).value_or(0)};
    if (breakpoints.any_at(pc)) CHECK_OK(step_over(event.vcpu, pc));
    CHECK_OK(run());
    return std::nullopt;
}

// The task's step ends when it runs again: it is met where it was switched away.
Result<void> RunControl::wait_for_task(ThreadKey tid) {
    const Thread* thread = threads().find(tid);
    if (thread == nullptr || !thread->task || machine_.os() == nullptr) {
        return fail(Errc::no_such_thread, "cannot step thread " + std::to_string(tid) + ": it is gone");
    }
    const RegisterSet saved = TRY(machine_.os()->saved_registers(*thread->task));
    const auto pc = saved.get(x86::rip);
    const auto sp = saved.get(x86::rsp);
    if (!pc || !sp) {
        return fail(Errc::bad_data, "cannot step thread " + std::to_string(tid) + ": its saved rip is unknown");
    }
    CHECK_OK(breakpoints.insert_internal(VirtualAddress{*pc}));
    wakeup_ = Wakeup{.thread = tid, .address = VirtualAddress{*pc}, .stack_pointer = *sp};
    return {};
}

Result<void> RunControl::step_over(VcpuId vcpu, VirtualAddress pc) {
    auto* execution = machine_.target().execution();
    std::vector<VcpuAction> alone(actions_.size(), VcpuAction::hold);
    alone.at(vcpu) = VcpuAction::step;
    CHECK_OK(breakpoints.lift(pc));
    machine_.forget();
    CHECK_OK(execution->resume(alone));
    const auto event = TRY(execution->wait_for_stop(step_over_limit));
    if (!event) return fail(Errc::timed_out, "stepping vCPU " + std::to_string(vcpu) + " over a breakpoint took too long");
    return breakpoints.put_back(pc);
}

ThreadKey RunControl::any_resumed(VcpuId preferred) {
    const auto resumed = [&](const Thread* t) { return t != nullptr && action_for(*t) != nullptr; };
    const ThreadMap& map = threads();
    if (const Thread* thread = map.on_vcpu(preferred); resumed(thread)) return thread->tid;
    for (const Thread& thread : map.threads()) {
        if (thread.vcpu && resumed(&thread)) return thread.tid;
    }
    for (const Thread& thread : map.threads()) {
        if (resumed(&thread)) return thread.tid;
    }
    return map.threads().empty() ? 0 : map.threads().front().tid;
}

}  // namespace exo::stub
