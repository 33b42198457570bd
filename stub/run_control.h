// Resuming and stopping, by thread. A client resumes guest tasks; the machine resumes vCPUs. What lies
// between is decided here: which stop is the client's, which is stepped over and goes on unseen.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "rsp/requests.h"
#include "rsp/stop_reply.h"
#include "stub/breakpoint_table.h"
#include "stub/conditions.h"
#include "stub/machine.h"
#include "stub/thread_map.h"
#include "stub/tracepoints.h"
#include "stub/views.h"

namespace exo::stub {

class RunControl {
public:
    struct Stop {
        bool exited = false;  // the guest is gone; or its process, if that is not the kernel
        ThreadKey thread = 0;
        rsp::Signal signal = rsp::Signal::trap;
        rsp::StopReply::Reason reason = rsp::StopReply::Reason::none;
        VirtualAddress watch_address{};
        std::string note{};  // for the user, where the stop reply has no place for it; one line
        std::int64_t process = kernel_pid;  // to whose thread it is told
        std::uint32_t exit_code{};          // of a process, as wait(2) has it
        std::int64_t child{};               // of fork and vfork: a process that is attached, too
        std::string program{};              // of exec: its path
        std::uint32_t system_call{};        // its number
    };
    // Of the life of an attached process, beside its end, what is a stop.
    struct Told {
        bool forks = false;
        bool vforks = false;
        bool execs = false;
    };

    RunControl(Machine& machine, bool vcpus_only, bool hardware_only = false)
        : breakpoints(machine, hardware_only),
          conditions(machine, trace_variables),
          tracepoints(machine, breakpoints, trace_variables),
          machine_(machine),
          vcpus_only_(vcpus_only) {}

    // Only threads that an action of `request` names run, are stepped, and can be named in the stop.
    Result<void> resume(const rsp::Resume& request);
    // The same by vCPU (stub/non_stop.h): those in `held` stand, whatever is on the others runs. `stepping`
    // is the thread of the one action that is a step. Stops by interrupt name no thread.
    Result<void> resume_around(const rsp::Resume& request, std::set<VcpuId> held,
                               std::optional<Thread> stepping);
    // The stop to report, nothing within `limit`, or when the client has something to be told before
    // (Conditions::take_output). Stops that are not the client's are dealt with here.
    Result<std::optional<Stop>> poll(std::chrono::milliseconds limit);
    // Whether a thread steps, by the last resume.
    [[nodiscard]] bool stepping() const { return step_.has_value(); }
    // Any thread. The next stop is reported as SIGINT, whatever else happens.
    void interrupt() noexcept;
    // The client or the guest has gone: nothing runs for anybody, no breakpoint is in the machine any more.
    void forget();

    // Somebody else may have changed the guest: the next question looks again.
    void forget_threads() {
        machine_.keep_registers_of({});
        machine_.forget();
        new_epoch();
    }

    // Whether poll() is to stop as soon as a kernel appears where there was none (run_control_boot.cpp).
    void tell_of_kernel(bool wanted) { boot_.wanted = wanted; }
    // What of processes poll() stops at (process_events.cpp).
    void tell_of_processes(Told told) { told_of_processes_ = told; }
    // Where a program that `awaited` says yes to begins, in any process, poll() stops by `exec` and the
    // process is attached; null: nowhere (process_events.cpp).
    using Awaited = std::function<bool(const os::Task&)>;
    void await_program(Awaited awaited) { awaited_ = std::move(awaited); }
    // The guest stands, and goes on standing with no breakpoint of anybody's in it and no process attached.
    Result<void> leave();

    // Which system calls of the attached processes are stops, at entry and at return (system_calls.cpp).
    void catch_calls(const rsp::CatchSystemCalls& request);

    // One that the last resume named, for a stop that is no thread's own: of the process that it was about,
    // the one on `preferred` if it is.
    rsp::ThreadId resumed_thread(VcpuId preferred = 0);
    // About which process the next resume is, if it does not say so itself.
    void set_current_process(std::int64_t process) { current_process_ = process; }

    // Of the last look at the machine. The guest must be stopped, or the list is of what it was.
    ThreadMap& threads();
    // The thread that stopped, while nobody has asked for another: where it is is known without a list. Good
    // until the guest runs. Else null.
    [[nodiscard]] const Thread* known(ThreadKey thread) const;
    // As the last look at the machine had them, however long ago that was.
    [[nodiscard]] const ThreadMap& last_threads() const { return threads_; }
    // As known() has it, else as a look finds it; null if it is not there.
    const Thread* find(ThreadKey thread);
    // gdb takes the first thread listed for the current one.
    void put_first(ThreadKey thread);
    // After somebody else stopped or changed the guest: attach, a register written.
    ThreadMap& fresh_threads() {
        new_epoch();
        return threads();
    }

    Views views;
    BreakpointTable breakpoints;
    TraceVariables trace_variables;
    Conditions conditions;
    Tracepoints tracepoints;

private:
    // A step that a task has begun and not ended (design: a step belongs to the task).
    struct Step {
        Thread thread;
        std::optional<VcpuId> vcpu;         // nothing while it waits for its wake-up
        std::optional<RegisterSet> before;  // when it was let go for one instruction
        int still = 0;                      // how often it then did not move
        std::uint64_t stack = 0;            // of the task, to notice cheaply that another task runs
        std::uint64_t range_start = 0;      // range step; empty range: one instruction
        std::uint64_t range_end = 0;
        std::int64_t process = kernel_pid;  // if it is another: of user mode alone
    };
    // A stepped task that has been switched away: it goes on here, with this stack pointer.
    struct Wakeup {
        ThreadKey thread = 0;
        VirtualAddress address{};
        std::uint64_t stack_pointer = 0;
        std::int64_t process = kernel_pid;  // if it is another: in user mode
        bool again = false;                 // the instruction there is still to be made
    };

    using Clock = std::chrono::steady_clock;
    // While no OS is recognised.
    struct Boot {
        bool wanted = false;
        std::optional<VirtualAddress> jump;         // ours, at the end of the decompressor
        std::optional<Clock::time_point> own_stop;  // was asked for then
        Clock::time_point next_look{};
    };
    struct Judged {  // by goes_on()
        VcpuId vcpu = 0;
        std::optional<BreakpointKey> stops;
    };
    // What a task does that comes by, as far as a debugger of its process is told (process_events.cpp).
    enum class Landmark : std::uint8_t {
        task_ends,
        task_begins,
        program_begins,
        program_has_begun,
        call_begins,
        call_returns,
    };
    struct CaughtCalls {
        bool all = false;
        std::set<std::uint32_t> numbers;
        [[nodiscard]] bool any() const { return all || !numbers.empty(); }
        [[nodiscard]] bool has(std::uint32_t number) const { return all || numbers.contains(number); }
    };
    // A thread that has its memory lent to a child: it goes on here, in user mode, once it has it back.
    struct Vfork {
        ThreadKey thread = 0;
        VirtualAddress address{};
        std::int64_t process = 0;
    };
    struct Around {  // of resume_around()
        std::set<VcpuId> held;
        std::optional<Thread> stepping;
    };

    Result<void> start();
    Result<void> plan();
    Result<void> plan_around();
    void run_all_but_held();
    Result<void> plan_without_list();
    [[nodiscard]] bool needs_no_list() const;
    [[nodiscard]] bool everybody_runs() const;
    Result<void> begin_step(const Thread& thread, std::int64_t process, const rsp::ResumeAction& action);
    Result<void> run();
    Result<void> begin_instruction();
    void begin_fingerprint(const RegisterSet& registers);
    Result<bool> step_is_over();
    Result<bool> skip_own_pause();
    static bool stood_still(const RegisterSet& before, const RegisterSet& after, int& times);
    void log_stop(const StopEvent& event);
    Result<std::optional<Stop>> handle(const StopEvent& event);
    Result<std::optional<Stop>> handle_step(const StopEvent& event);
    Result<std::optional<Stop>> step_reached(VcpuId vcpu, VirtualAddress pc);
    Result<std::optional<Stop>> switched_away(VcpuId vcpu);
    Stop stepped_to_its_end(VcpuId vcpu);
    Result<bool> goes_on(const StopEvent& event);
    Result<std::optional<Stop>> handle_breakpoint(const StopEvent& event);
    Result<std::optional<Stop>> report(const StopEvent& event, Stop stop,
                                       std::optional<std::int64_t> process = {});
    Result<std::optional<Stop>> report_watch(const StopEvent& event);
    Result<std::optional<Stop>> pass_unseen(VcpuId vcpu);
    Stop interrupted(VcpuId vcpu);
    Result<void> wait_for_task(ThreadKey thread);
    Result<void> go_past(VcpuId vcpu, VirtualAddress pc);
    Result<void> step_over(VcpuId vcpu, VirtualAddress pc);
    Result<bool> step_in_place(VcpuId vcpu, VirtualAddress pc);
    Result<StopEvent> step_alone(VcpuId vcpu);
    Result<StopEvent> step_alone_once(VcpuId vcpu);

    // run_control_boot.cpp
    Result<VirtualAddress> linear_pc(VcpuId vcpu);
    Result<void> step_off_hidden_breakpoints();
    static Stop hidden_breakpoint(VirtualAddress pc);
    [[nodiscard]] bool watches_boot() const;
    [[nodiscard]] std::chrono::milliseconds patience(std::chrono::milliseconds limit) const;
    void ask_for_stop();
    [[nodiscard]] bool is_own_stop(const StopEvent& event) const;
    void look_while_running();
    Result<std::optional<Stop>> after_own_stop();
    void await_kernel(VirtualAddress jump);
    void leave_boot();
    Result<std::optional<Stop>> enter_kernel(VcpuId vcpu);
    Result<std::optional<Stop>> look_for_kernel();

    // run_control_processes.cpp
    Result<void> wait_for_user_mode(const Thread& thread);
    Result<std::optional<Stop>> entered_kernel(VcpuId vcpu);
    Result<std::optional<Stop>> back_in_user_mode(const Thread& thread);
    [[nodiscard]] bool counts(const BreakpointKey& key, const Thread* thread) const;
    [[nodiscard]] std::optional<std::int64_t> told_process(const Thread& thread) const;
    [[nodiscard]] VcpuAction action_of_unnamed(const Thread& thread) const;

    // process_events.cpp
    Result<void> watch_processes();
    Result<void> watch_for(VirtualAddress address, Landmark landmark);
    Result<void> watch_return(VcpuId vcpu, Landmark landmark);
    Result<std::optional<Stop>> process_event(VcpuId vcpu, VirtualAddress pc);
    Result<std::optional<Stop>> reached(Landmark landmark, VcpuId vcpu);
    Result<std::optional<Stop>> task_ends(const Thread& thread);
    Result<std::optional<Stop>> task_begins(const Thread& thread);
    Result<std::optional<Stop>> program_has_begun(const Thread& thread);
    [[nodiscard]] bool is_awaited(Landmark landmark, const Thread& thread) const;
    Result<std::optional<Stop>> after_vfork(VcpuId vcpu, VirtualAddress pc);
    std::optional<Stop> vfork_is_over(const Thread& thread);
    void forget_vforks();
    Result<void> step_off_told_landmark();
    void give_breakpoints(std::int64_t parent, std::int64_t child);

    // system_calls.cpp
    Result<std::optional<Stop>> call_begins(const Thread& thread);
    Result<std::optional<Stop>> call_returns(const Thread& thread);
    Result<std::optional<Stop>> told_call(const Thread& thread, rsp::StopReply::Reason reason);
    [[nodiscard]] bool has_more_to_tell(VcpuId vcpu, VirtualAddress pc);
    Result<void> take_changed_number(VcpuId vcpu);

    // Of the thread by the id that it has in `process`; by any of its ids.
    [[nodiscard]] const rsp::ResumeAction* action_for(const Thread& thread, std::int64_t process) const;
    [[nodiscard]] const rsp::ResumeAction* action_for(const Thread& thread) const;
    [[nodiscard]] bool resumed(const Thread& thread, std::int64_t process) const;
    [[nodiscard]] bool resumed(const Thread& thread) const { return told_process(thread).has_value(); }
    const Thread* on_vcpu(VcpuId vcpu);
    [[nodiscard]] const Thread* known() const;
    void end();
    void new_epoch() { ++epoch_; }

    Machine& machine_;
    bool vcpus_only_;
    std::uint64_t epoch_ = 1;  // counts up when nothing is true any more that was known of the guest
    ThreadMap threads_;
    std::uint64_t threads_epoch_ = 0;
    std::optional<Thread> known_;
    std::uint64_t known_epoch_ = 0;
    ThreadKey first_ = 0;
    rsp::Resume request_;
    std::optional<Around> around_;
    std::uint64_t os_generation_ = 0;  // of the threads that request_ names
    std::int64_t current_process_ = kernel_pid;
    Told told_of_processes_;
    Awaited awaited_;
    std::map<VirtualAddress, Landmark> landmarks_;  // breakpoints of ours, in the kernel
    std::set<ThreadKey> leaving_;                   // which are at their end, of attached processes
    std::uint64_t landmarks_generation_ = 0;        // of the kernel that they are in
    std::map<VcpuId, VirtualAddress> told_at_;  // a stop was of one, or of a vfork, and it still stands there
    std::set<std::string_view> lost_;           // what is not told, as the log has it
    std::vector<Vfork> vforks_;                 // whose end is to be told
    CaughtCalls caught_calls_;
    std::set<ThreadKey> in_calls_;  // whose entry was seen, while the landmark at its return is there
    std::vector<VcpuAction> actions_;
    std::optional<StopEvent> queued_;  // happened in a step over a breakpoint, to be handled next
    std::optional<Judged> judged_;
    bool steps_in_place_ = false;  // a step with the breakpoint in place was seen to get past it
    std::optional<Step> step_;
    std::optional<Wakeup> wakeup_;
    Boot boot_;
    std::atomic<bool> interrupted_{false};
};

}  // namespace exo::stub
