#include "stub/run_control.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "backends/arch/x86_64.h"

namespace exo::stub {
namespace {

using Reason = rsp::StopReply::Reason;
using Kind = rsp::ResumeAction::Kind;

bool matches(const rsp::ThreadId& pattern, const rsp::ThreadId& id) {
    const bool pid =
        pattern.pid == rsp::ThreadId::all || pattern.pid == rsp::ThreadId::any || pattern.pid == id.pid;
    const bool tid =
        pattern.tid == rsp::ThreadId::all || pattern.tid == rsp::ThreadId::any || pattern.tid == id.tid;
    return pid && tid;
}

bool is_step(const rsp::ResumeAction& action) {
    return action.kind == Kind::step || action.kind == Kind::range_step;
}

constexpr rsp::ThreadId everybody{kernel_pid, rsp::ThreadId::all};

Result<void> nobody_to_resume() {
    return fail(Errc::no_such_thread, "none of the threads to be resumed is there");
}

// In the order of StopEvent::Cause.
constexpr std::array<std::string_view, 9> cause_names{"none",         "interrupt",           "step",
                                                      "breakpoint",   "hardware breakpoint", "watch (write)",
                                                      "watch (read)", "watch (access)",      "exited"};

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
        threads_.put_first(first_);
        threads_epoch_ = epoch_;
    }
    return threads_;
}

const Thread* RunControl::known() const {
    return known_ && known_epoch_ == epoch_ && threads_epoch_ != epoch_ ? &*known_ : nullptr;
}

const Thread* RunControl::known(ThreadKey thread) const {
    const Thread* stopped = known();
    return stopped != nullptr && stopped->tid == thread ? stopped : nullptr;
}

const Thread* RunControl::find(ThreadKey thread) {
    const Thread* stopped = known(thread);
    return stopped != nullptr ? stopped : threads().find(thread);
}

// A stop is of one vCPU: the others, and all that runs on none, wait until somebody asks. Where ids were in
// doubt they are given by the list alone.
const Thread* RunControl::on_vcpu(VcpuId vcpu) {
    if (threads_epoch_ != epoch_ && !threads_.has_duplicates()) {
        if (const Thread* stopped = known(); stopped != nullptr && stopped->vcpu == vcpu) return stopped;
        if (auto thread = ThreadMap::current(machine_, vcpu, vcpus_only_)) {
            known_ = std::move(thread);
            known_epoch_ = epoch_;
            return &*known_;
        }
    }
    return threads().on_vcpu(vcpu);
}

void RunControl::put_first(ThreadKey thread) {
    first_ = thread;
    if (threads_epoch_ == epoch_) threads_.put_first(thread);
}

Result<void> RunControl::resume(const rsp::Resume& request) {
    end();
    request_ = request;
    around_.reset();
    const auto names_one = [](const rsp::ResumeAction& action) { return action.thread.pid > 0; };
    const auto named = std::ranges::find_if(request_.actions, names_one);
    if (named != request_.actions.end()) current_process_ = named->thread.pid;
    if (!needs_no_list()) threads();  // as they are now: what the actions name
    os_generation_ = machine_.os_generation();
    auto started = start();
    if (!started) end();
    return started;
}

Result<void> RunControl::start() {
    CHECK_OK(watch_processes());
    CHECK_OK(around_ ? plan_around() : plan());
    CHECK_OK(breakpoints.settle());
    CHECK_OK(step_off_hidden_breakpoints());
    CHECK_OK(step_off_told_landmark());
    machine_.target().execution()->judge_hits([this](const StopEvent& event) { return goes_on(event); });
    return run();
}

bool RunControl::everybody_runs() const {
    return !request_.actions.empty() && matches(request_.actions.front().thread, everybody) &&
           request_.actions.front().kind == Kind::go_on;
}

// All threads alike run or stay, but for the one that stopped: where the others are does not matter.
bool RunControl::needs_no_list() const {
    if (threads_epoch_ == epoch_) return false;                   // it is there
    if (!views.processes.empty() || !views.kernel) return false;  // whose threads are where
    const Thread* stopped = known();
    const auto* own = stopped != nullptr ? action_for(*stopped) : nullptr;
    return std::ranges::all_of(request_.actions, [&](const rsp::ResumeAction& action) {
        return matches(action.thread, everybody) ? !is_step(action) : &action == own;
    });
}

// From the client's threads to vCPUs.
Result<void> RunControl::plan() {
    if (needs_no_list()) return plan_without_list();
    actions_.assign(machine_.target().vcpu_count(), VcpuAction::hold);
    bool any = false;
    for (const Thread& thread : threads().threads()) {
        const rsp::ResumeAction* action = action_for(thread);
        if (action == nullptr && thread.vcpu) actions_.at(*thread.vcpu) = action_of_unnamed(thread);
        if (action == nullptr || action->kind == Kind::stop) continue;
        any = true;
        if (thread.vcpu) actions_.at(*thread.vcpu) = is_step(*action) ? VcpuAction::step : VcpuAction::run;
        if (!is_step(*action) || step_) continue;
        const auto process = views.process_of(thread);
        const bool of_process = process && action_for(thread, *process) == action;
        CHECK_OK(begin_step(thread, of_process ? *process : kernel_pid, *action));
        if (thread.vcpu && !step_->vcpu) actions_.at(*thread.vcpu) = VcpuAction::run;
    }
    if (!any) return nobody_to_resume();
    // A resumed task that no vCPU runs can only come to run if some vCPU does.
    if (std::ranges::all_of(actions_, [](VcpuAction a) { return a == VcpuAction::hold; })) {
        std::ranges::fill(actions_, VcpuAction::run);
    }
    return {};
}

Result<void> RunControl::plan_without_list() {
    const auto rest = std::ranges::find_if(
        request_.actions, [](const auto& action) { return matches(action.thread, everybody); });
    const bool run = rest != request_.actions.end() && rest->kind != Kind::stop;
    actions_.assign(machine_.target().vcpu_count(), run ? VcpuAction::run : VcpuAction::hold);
    if (const Thread* stopped = known()) {
        const auto* own = action_for(*stopped);
        auto& action = actions_.at(*stopped->vcpu);
        action = VcpuAction::hold;
        if (own != nullptr && own->kind != Kind::stop) {
            action = is_step(*own) ? VcpuAction::step : VcpuAction::run;
            if (is_step(*own)) CHECK_OK(begin_step(*stopped, kernel_pid, *own));
        }
    }
    const auto held = [](VcpuAction a) { return a == VcpuAction::hold; };
    return std::ranges::all_of(actions_, held) ? nobody_to_resume() : Result<void>{};
}

Result<void> RunControl::run() {
    if (queued_) return {};  // poll() has something to handle first
    if (TRY(step_is_over()) || TRY(skip_own_pause())) {
        queued_ = StopEvent{.cause = StopEvent::Cause::step, .vcpu = *step_->vcpu};
        return {};
    }
    CHECK_OK(begin_instruction());
    machine_.forget();
    new_epoch();
    auto* execution = machine_.target().execution();
    judged_.reset();
    CHECK_OK(execution->resume(actions_));
    // It came while the guest stood for us, which the target took for harmless.
    if (interrupted_) execution->interrupt();
    return {};
}

const rsp::ResumeAction* RunControl::action_for(const Thread& thread, std::int64_t process) const {
    const auto it = std::ranges::find_if(request_.actions, [&](const rsp::ResumeAction& action) {
        return matches(action.thread, {process, thread.tid});
    });
    return it == request_.actions.end() ? nullptr : &*it;
}

const rsp::ResumeAction* RunControl::action_for(const Thread& thread) const {
    const auto process = views.process_of(thread);
    const rsp::ResumeAction* own = process ? action_for(thread, *process) : nullptr;
    return own != nullptr || !views.kernel ? own : action_for(thread, kernel_pid);
}

// Once the OS has come or gone, no thread is left of those that the client named: whatever runs is its own.
bool RunControl::resumed(const Thread& thread, std::int64_t process) const {
    if (machine_.os_generation() != os_generation_) return process == kernel_pid;
    const rsp::ResumeAction* action = action_for(thread, process);
    return action != nullptr && action->kind != Kind::stop;
}

void RunControl::interrupt() noexcept {
    interrupted_ = true;
    if (auto* execution = machine_.target().execution()) execution->interrupt();
}

Result<std::optional<RunControl::Stop>> RunControl::poll(std::chrono::milliseconds limit) {
    const auto deadline = Clock::now() + limit;
    for (auto left = limit;;) {
        auto event = std::exchange(queued_, std::nullopt);
        if (!event) {
            auto waited = machine_.target().execution()->wait_for_stop(patience(left));
            if (waited && !*waited) {
                look_while_running();
                return std::nullopt;
            }
            machine_.forget();
            new_epoch();
            if (!waited) {
                end();
                return fail(std::move(waited).error());
            }
            event = *waited;
        }
        auto stop = handle(*event);
        if (!stop || *stop) {
            end();
            return stop;
        }
        left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
        if ((left.count() <= 0 && !queued_) || conditions.has_output()) return std::nullopt;
    }
}

void RunControl::end() {
    if (wakeup_) breakpoints.remove_internal(wakeup_->address, wakeup_->process);
    wakeup_.reset();
    leave_boot();
    if (auto* execution = machine_.target().execution()) execution->judge_hits({});
    judged_.reset();
    step_.reset();
    queued_.reset();
    interrupted_ = false;
}

void RunControl::forget() {
    end();
    breakpoints.forget();
    conditions.forget();
    tracepoints.forget();
    landmarks_.clear();
    told_at_.clear();
    caught_calls_ = {};
    in_calls_.clear();
    lost_.clear();
    leaving_.clear();
    vforks_.clear();
    new_epoch();
}

// Looks for itself, so that what follows is the same with and without.
void RunControl::log_stop(const StopEvent& event) {
    if (!spdlog::should_log(spdlog::level::debug)) return;
    const auto pc = linear_pc(event.vcpu);
    const auto thread = ThreadMap::current(machine_, event.vcpu, vcpus_only_);
    spdlog::debug("stop of vCPU {} at {}: {}; thread {}", event.vcpu, pc ? hex(*pc) : "?",
                  cause_names.at(static_cast<std::size_t>(event.cause)),
                  thread ? std::to_string(thread->tid) : "?");
}

Result<std::optional<RunControl::Stop>> RunControl::handle(const StopEvent& event) {
    using Cause = StopEvent::Cause;
    if (event.cause == Cause::exited) return Stop{.exited = true};
    log_stop(event);
    if (is_own_stop(event)) return after_own_stop();
    if (interrupted_ || event.cause == Cause::interrupt || event.cause == Cause::none)
        return interrupted(event.vcpu);
    if (event.cause == Cause::step) return handle_step(event);
    if (event.cause == Cause::breakpoint || event.cause == Cause::hardware_breakpoint) {
        return handle_breakpoint(event);
    }
    return report_watch(event);
}

RunControl::Stop RunControl::interrupted(VcpuId vcpu) {
    const rsp::ThreadId told = around_ ? rsp::ThreadId{kernel_pid, 0} : resumed_thread(vcpu);
    Stop stop{.thread = told.tid, .signal = rsp::Signal::interrupt, .process = told.pid};
    stop.exited = told.tid == 0 && told.pid != kernel_pid;  // its end was not seen
    return stop;
}

// A watchpoint of another process at that address is not this one's.
Result<std::optional<RunControl::Stop>> RunControl::report_watch(const StopEvent& event) {
    Stop stop{.reason = reason_of(event.cause), .watch_address = event.address};
    const auto watched = breakpoints.watched_by_client(event.address);
    if (watched.empty()) return report(event, stop);
    const Thread* thread = on_vcpu(event.vcpu);
    for (const BreakpointKey& key : watched) {
        if (!counts(key, thread)) continue;
        stop.watch_address = key.address;
        return report(event, stop, key.process);
    }
    return pass_unseen(event.vcpu);
}

Result<std::optional<RunControl::Stop>> RunControl::pass_unseen(VcpuId vcpu) {
    const VirtualAddress pc = TRY(linear_pc(vcpu));
    if (breakpoints.any_at(pc)) CHECK_OK(go_past(vcpu, pc));
    CHECK_OK(run());
    return std::nullopt;
}

// The stop is the client's if it resumed the thread, in the process whose stop it is; else the guest goes on
// as if nothing had been.
Result<std::optional<RunControl::Stop>> RunControl::report(const StopEvent& event, Stop stop,
                                                           std::optional<std::int64_t> process) {
    const Thread* thread = on_vcpu(event.vcpu);
    if (thread != nullptr && !process) process = told_process(*thread);
    if (thread != nullptr && process && resumed(*thread, *process)) {
        stop.thread = thread->tid;
        stop.process = *process;
        return stop;
    }
    return pass_unseen(event.vcpu);
}

rsp::ThreadId RunControl::resumed_thread(VcpuId preferred) {
    const auto is_told = [&](const Thread& thread) { return told_process(thread) == current_process_; };
    const auto id = [&](const Thread& thread) {
        return rsp::ThreadId{told_process(thread).value_or(kernel_pid), thread.tid};
    };
    if (const Thread* thread = on_vcpu(preferred); thread != nullptr && is_told(*thread)) return id(*thread);
    const auto& all = threads().threads();
    for (const bool on_any_vcpu : {true, false}) {
        const auto found = std::ranges::find_if(
            all, [&](const Thread& thread) { return is_told(thread) && (thread.vcpu || !on_any_vcpu); });
        if (found != all.end()) return id(*found);
    }
    if (current_process_ != kernel_pid) return {current_process_, 0};
    const auto any = std::ranges::find_if(all, [&](const Thread& thread) { return resumed(thread); });
    if (any != all.end()) return id(*any);
    return {kernel_pid, all.empty() ? 0 : all.front().tid};
}

}  // namespace exo::stub
