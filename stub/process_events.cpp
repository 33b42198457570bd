// The part of RunControl for the life of processes: forks, programs that begin, ends. The kernel's own
// functions for it are watched while a process is attached, or a program is awaited.
//
// As gdbserver does it (gdbserver/linux-low.cc, handle_extended_wait): the child of a fork is attached and
// has its parent's breakpoints; a process that runs another program has none any more.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "backends/arch/x86_64.h"
#include "stub/run_control.h"

namespace exo::stub {

// All tasks come by at these functions of the kernel: what is looked at is an argument, or where it returns
// to.
Result<void> RunControl::watch_processes() {
    struct Row {
        Landmark landmark;
        std::string_view function;
        std::string_view lost;       // without it; empty: not every kernel has it
        std::string_view earlier{};  // its name in other kernels
    };
    static constexpr auto rows = std::to_array<Row>({
        // With what wait(2) gives as its argument (kernel/exit.c).
        {Landmark::task_ends, "do_exit", "the end of a process is told at the next stop only"},
        // With the new task, which nothing has run yet (kernel/fork.c, kernel_clone()).
        {Landmark::task_begins, "wake_up_new_task", "forks are not told"},
        // The old program is gone; the new one's registers are there when it returns (fs/binfmt_elf.c,
        // arch/x86/kernel/process_64.c).
        {Landmark::program_begins, "start_thread", "exec is not told"},
        {Landmark::program_begins, "compat_start_thread", ""},
        // See system_calls.cpp.
        {Landmark::call_begins, "do_syscall_64", "system calls are not caught"},
        {Landmark::call_returns, "arch_do_signal_or_restart",
         "system calls that a signal ends are told where its handler begins", "arch_do_signal"},
    });
    const bool calls = caught_calls_.any();
    const auto is_wanted = [&](const Row& row) {
        if (awaited_ && row.landmark == Landmark::program_begins) return true;
        if (views.processes.empty()) return false;
        if (row.landmark == Landmark::call_begins || row.landmark == Landmark::call_returns) return calls;
        if (row.landmark == Landmark::task_begins)
            return told_of_processes_.forks || told_of_processes_.vforks;
        return row.landmark != Landmark::program_begins || told_of_processes_.execs;
    };
    std::map<VirtualAddress, Landmark> wanted;
    if (machine_.os() != nullptr) {
        for (const Row& row : rows) {
            if (!is_wanted(row)) continue;
            auto address = machine_.os()->symbols().find(row.function);
            if (!address && !row.earlier.empty()) address = machine_.os()->symbols().find(row.earlier);
            if (address) {
                wanted.emplace(*address, row.landmark);
            } else if (!row.lost.empty() && lost_.insert(row.lost).second) {
                spdlog::warn("{}: the kernel has no {}", row.lost, row.function);
            }
        }
    }
    const bool same_kernel =
        std::exchange(landmarks_generation_, machine_.os_generation()) == machine_.os_generation();
    std::erase_if(landmarks_, [&](const auto& entry) {
        const auto& [address, landmark] = entry;
        const bool found =
            (landmark == Landmark::program_has_begun && (told_of_processes_.execs || awaited_)) ||
            (landmark == Landmark::call_returns && (calls || !vforks_.empty()));
        const bool stays = wanted.contains(address) || (found && !wanted.empty());
        if (!stays || !same_kernel) breakpoints.remove_internal(address);
        return !stays || !same_kernel;
    });
    const auto is_return = [](const auto& entry) { return entry.second == Landmark::call_returns; };
    if (std::ranges::none_of(landmarks_, is_return)) in_calls_.clear();
    for (const auto& [address, landmark] : wanted) {
        const auto watched = watch_for(address, landmark);
        if (watched) continue;
        const auto* row = std::ranges::find(rows, landmark, &Row::landmark);
        if (lost_.insert(row->lost).second) spdlog::warn("{}: {}", row->lost, watched.error().message);
    }
    forget_vforks();
    return {};
}

Result<void> RunControl::watch_for(VirtualAddress address, Landmark landmark) {
    if (landmarks_.contains(address)) return {};
    CHECK_OK(breakpoints.insert_internal(address));
    landmarks_.emplace(address, landmark);
    return {};
}

// Where the function returns to at whose first instruction `vcpu` stands.
Result<void> RunControl::watch_return(VcpuId vcpu, Landmark landmark) {
    const auto sp = TRY(machine_.vcpu_registers(vcpu))->get(x86::rsp).value_or(0);
    const auto back = TRY(machine_.os()->kernel_space().read_value<std::uint64_t>(VirtualAddress{sp}));
    return watch_for(VirtualAddress{back}, landmark);
}

Result<std::optional<RunControl::Stop>> RunControl::process_event(VcpuId vcpu, VirtualAddress pc) {
    told_at_.erase(vcpu);
    const auto landmark = landmarks_.find(pc);
    auto told = landmark != landmarks_.end() ? TRY(reached(landmark->second, vcpu)) : std::nullopt;
    if (!told && !vforks_.empty()) told = TRY(after_vfork(vcpu, pc));
    if (told) told_at_.emplace(vcpu, pc);
    return told;
}

// The client sees no breakpoint there that it would step over. A vCPU that is held goes on later.
Result<void> RunControl::step_off_told_landmark() {
    for (auto told = told_at_.begin(); told != told_at_.end() && !queued_;) {
        const auto [vcpu, pc] = *told;
        const auto action = vcpu < actions_.size() ? actions_[vcpu] : VcpuAction::step;
        if (action == VcpuAction::hold) {
            ++told;
            continue;
        }
        told = told_at_.erase(told);
        if (action != VcpuAction::run || TRY(linear_pc(vcpu)) != pc || !breakpoints.any_at(pc)) continue;
        if (has_more_to_tell(vcpu, pc)) {
            queued_ = StopEvent{.cause = StopEvent::Cause::breakpoint, .vcpu = vcpu};
        } else {
            const auto landmark = landmarks_.find(pc);
            if (landmark != landmarks_.end() && landmark->second == Landmark::call_begins)
                CHECK_OK(take_changed_number(vcpu));
            CHECK_OK(go_past(vcpu, pc));
        }
    }
    return {};
}

// Nothing: it is of no attached process, or no event; the task goes on.
Result<std::optional<RunControl::Stop>> RunControl::reached(Landmark landmark, VcpuId vcpu) {
    const Thread* now = on_vcpu(vcpu);
    if (now == nullptr || !(views.process_of(*now) || is_awaited(landmark, *now))) return std::nullopt;
    const Thread thread = *now;
    switch (landmark) {
        case Landmark::task_ends: return task_ends(thread);
        case Landmark::task_begins: return task_begins(thread);
        case Landmark::program_has_begun: return program_has_begun(thread);
        case Landmark::call_begins: return call_begins(thread);
        case Landmark::call_returns: return call_returns(thread);
        case Landmark::program_begins: break;
    }
    const auto watched = watch_return(vcpu, Landmark::program_has_begun);
    if (!watched)
        spdlog::warn("exec of process {} is not told: {}", thread.task->tgid, watched.error().message);
    return std::nullopt;
}

// Of the last thread of an attached process: the end of it.
Result<std::optional<RunControl::Stop>> RunControl::task_ends(const Thread& thread) {
    const auto process = views.process_of(thread);
    std::erase_if(leaving_, [&](ThreadKey left) { return threads().find(left) == nullptr; });
    leaving_.insert(thread.tid);
    in_calls_.erase(thread.tid);
    const bool last = std::ranges::none_of(threads().threads(), [&](const Thread& other) {
        return views.process_of(other) == process && !leaving_.contains(other.tid) &&
               !has_exited(*other.task);
    });
    if (last) {
        const auto code = TRY(machine_.vcpu_registers(*thread.vcpu))->get(x86::rdi).value_or(0);
        return Stop{.exited = true, .process = *process, .exit_code = static_cast<std::uint32_t>(code)};
    }
    if (step_ && step_->thread.tid == thread.tid) return stepped_to_its_end(*thread.vcpu);
    return std::nullopt;
}

// A new thread is found at the next look at all threads, and is no event.
Result<std::optional<RunControl::Stop>> RunControl::task_begins(const Thread& thread) {
    const std::int64_t process = *views.process_of(thread);
    const VirtualAddress address{TRY(machine_.vcpu_registers(*thread.vcpu))->get(x86::rdi).value_or(0)};
    const auto& all = threads().threads();
    const auto child =
        std::ranges::find_if(all, [&](const Thread& t) { return t.task && t.task->address == address; });
    if (child == all.end()) {
        spdlog::warn(
            "a task that process {} starts is in no list of the kernel's: if it is a fork, it is not told",
            process);
        return std::nullopt;
    }
    const std::int64_t forked = child->task->tgid;
    // What vfork(2) is to a debugger: a child that has no memory of its own, nor any breakpoints.
    const bool lent = child->task->memory == thread.task->memory;
    if (forked == process || !(lent ? told_of_processes_.vforks : told_of_processes_.forks) ||
        !resumed(thread, process))
        return std::nullopt;
    views.processes.insert(forked);
    give_breakpoints(process, forked);
    if (lent) {
        const auto pc = TRY(machine_.user_registers(*thread.task, thread.vcpu, false)).values.get(x86::rip);
        if (pc) CHECK_OK(breakpoints.insert_internal(VirtualAddress{*pc}, process));
        if (pc) vforks_.push_back({.thread = thread.tid, .address = VirtualAddress{*pc}, .process = process});
    }
    using Reason = rsp::StopReply::Reason;
    return Stop{.thread = thread.tid,
                .reason = lent ? Reason::vfork : Reason::fork,
                .process = process,
                .child = forked};
}

void RunControl::give_breakpoints(std::int64_t parent, std::int64_t child) {
    std::vector<BreakpointKey> keys;
    for (const auto& [key, state] : breakpoints.all()) {
        if (state.by_client && key.process == parent) keys.push_back(key);
    }
    for (BreakpointKey key : keys) {
        const auto* program = conditions.program(key);
        auto copied = program != nullptr ? *program : rsp::BreakpointProgram{};
        key.process = child;
        if (const auto given = breakpoints.insert(key); !given) {
            spdlog::warn("process {} does not have its parent's breakpoint at {}: {}", child,
                         hex(key.address), given.error().message);
            continue;
        }
        conditions.set(key, std::move(copied));
    }
}

// The name that the task has is the new program's by then (fs/exec.c, begin_new_exec()).
bool RunControl::is_awaited(Landmark landmark, const Thread& thread) const {
    const bool begins = landmark == Landmark::program_begins || landmark == Landmark::program_has_begun;
    return begins && awaited_ && Views::guest_process(thread) && awaited_(*thread.task);
}

Result<std::optional<RunControl::Stop>> RunControl::program_has_begun(const Thread& thread) {
    const std::int64_t process = thread.task->tgid;
    if (is_awaited(Landmark::program_has_begun, thread)) {
        views.processes.insert(process);
        return Stop{.thread = thread.tid, .reason = rsp::StopReply::Reason::exec, .process = process};
    }
    for (const BreakpointKey& key : breakpoints.remove_of(process)) conditions.remove(key);
    leaving_.erase(thread.tid);  // as it is called now: another thread that had this id has ended for it
    if (caught_calls_.any()) in_calls_.insert(thread.tid);
    if (!resumed(thread, process)) return std::nullopt;
    auto* processes = machine_.os()->processes();
    auto program =
        processes != nullptr ? processes->proc_link(*thread.task, "exe") : fail(Errc::unsupported, "");
    if (!program) spdlog::warn("which program process {} runs now: {}", process, program.error().message);
    return Stop{.thread = thread.tid,
                .reason = rsp::StopReply::Reason::exec,
                .process = process,
                .program = std::move(program).value_or(thread.task->comm)};
}

// In user mode again, where it was when it made the child.
Result<std::optional<RunControl::Stop>> RunControl::after_vfork(VcpuId vcpu, VirtualAddress pc) {
    const Thread* now = on_vcpu(vcpu);
    if (now == nullptr || !x86::in_user_mode(*TRY(machine_.vcpu_registers(vcpu)))) return std::nullopt;
    const bool there =
        std::ranges::any_of(vforks_, [&](const Vfork& v) { return v.thread == now->tid && v.address == pc; });
    return there ? vfork_is_over(*now) : std::nullopt;
}

std::optional<RunControl::Stop> RunControl::vfork_is_over(const Thread& thread) {
    const auto vfork = std::ranges::find(vforks_, thread.tid, &Vfork::thread);
    if (vfork == vforks_.end()) return std::nullopt;
    const Stop stop{
        .thread = vfork->thread, .reason = rsp::StopReply::Reason::vforkdone, .process = vfork->process};
    breakpoints.remove_internal(vfork->address, vfork->process);
    vforks_.erase(vfork);
    return resumed(thread, stop.process) ? std::optional{stop} : std::nullopt;
}

Result<void> RunControl::leave() {
    end();
    awaited_ = {};
    views.processes.clear();
    breakpoints.remove_all();
    CHECK_OK(watch_processes());
    told_at_.clear();
    return breakpoints.settle();
}

// Of who has gone since, or was detached.
void RunControl::forget_vforks() {
    std::erase_if(vforks_, [&](const Vfork& vfork) {
        if (views.processes.contains(vfork.process) && threads().find(vfork.thread) != nullptr) return false;
        breakpoints.remove_internal(vfork.address, vfork.process);
        return true;
    });
}

}  // namespace exo::stub
