#include "stub/non_stop.h"

#include <algorithm>
#include <utility>

#include <spdlog/spdlog.h>

namespace exo::stub {
namespace {

using ActionKind = rsp::ResumeAction::Kind;

// A machine that does not stop within this is broken.
constexpr std::chrono::seconds pause_limit{10};
constexpr std::chrono::milliseconds pause_slice{1000};

bool is_of_one_thread(const rsp::ThreadId& id) { return id.tid > 0; }

}  // namespace

// The actions of a vCont by thread. gdb names each thread that it lets go, and there may be thousands.
class NonStop::Actions {
public:
    explicit Actions(const rsp::Resume& request) {
        for (const rsp::ResumeAction& action : request.actions) {
            if (!ThreadMap::names_process(action.thread.pid)) continue;
            if (is_of_one_thread(action.thread)) {
                of_one_.emplace(action.thread.tid, &action);
            } else if (of_all_ == nullptr) {
                of_all_ = &action;
            }
        }
    }
    // The first one that matches; null if none does.
    [[nodiscard]] const rsp::ResumeAction* of(ThreadKey thread) const {
        const auto own = of_one_.find(thread);
        if (own == of_one_.end()) return of_all_;
        return of_all_ == nullptr ? own->second : std::min(own->second, of_all_);
    }

private:
    std::map<ThreadKey, const rsp::ResumeAction*> of_one_;
    const rsp::ResumeAction* of_all_ = nullptr;
};

// --- the mode ---

void NonStop::begin(ThreadKey first) {
    on_ = true;
    forget();
    begun_ = true;
    os_generation_ = machine_.os_generation();
    record({.thread = first, .signal = rsp::Signal::none});
    queue_.clear();
}

void NonStop::end() {
    on_ = false;
    forget();
}

void NonStop::forget() {
    stands_ = true;
    begun_ = all_held_ = gone_ = announced_ = false;
    stopped_.clear();
    steps_.clear();
    queue_.clear();
    resumed_last_.reset();
    machine_.keep_registers_of({});
}

const Thread* NonStop::stopped(ThreadKey thread) const {
    const auto it = stopped_.find(thread);
    return it == stopped_.end() ? nullptr : &it->second.thread;
}

Result<void> NonStop::check_stopped(ThreadKey thread) const {
    if (stopped(thread) != nullptr) return {};
    return fail(Errc::busy, "thread " + std::to_string(thread) + " runs");
}

// --- what the client asks for ---

Result<void> NonStop::apply(const rsp::Resume& request) {
    const Actions actions{request};
    for (const rsp::ResumeAction& action : request.actions) {
        if (action.kind == ActionKind::stop) apply_stop(actions, action.thread);
    }
    // A thread whose stop the client has not fetched yet is one that it takes to be running.
    std::set<ThreadKey> unfetched;
    for (const Event& event : queue_) unfetched.insert(event.thread);
    std::vector<std::pair<ThreadKey, const rsp::ResumeAction*>> released;
    for (const auto& [thread, stopped] : stopped_) {
        const auto* action = actions.of(thread);
        const bool resumes = action != nullptr && action->kind != ActionKind::stop;
        if (resumes && !unfetched.contains(thread)) released.emplace_back(thread, action);
    }
    for (const auto& [thread, action] : released) release(thread, *action);
    all_held_ = false;
    return {};
}

void NonStop::release(ThreadKey thread, const rsp::ResumeAction& action) {
    Stopped& stopped = stopped_.at(thread);
    if (stopped.later) return record(*std::exchange(stopped.later, std::nullopt));
    if (action.kind != ActionKind::go_on) {
        Step step{.action = action, .thread = stopped.thread};
        step.action.thread = stopped.thread.id();
        // Where it is now, if it held no vCPU.
        step.begun = !stopped.thread.vcpu;
        steps_.push_back(std::move(step));
    }
    if (is_of_one_thread(action.thread) || !resumed_last_) resumed_last_ = thread;
    stopped_.erase(thread);
}

void NonStop::apply_stop(const Actions& actions, const rsp::ThreadId& whom) {
    std::vector<ThreadKey> threads;
    if (is_of_one_thread(whom)) {
        threads.push_back(whom.tid);
    } else {
        for (const Thread& thread : run_control_.threads().threads()) threads.push_back(thread.tid);
    }
    for (const ThreadKey thread : threads) {
        const auto* own = actions.of(thread);
        if (own == nullptr || own->kind != ActionKind::stop || stopped(thread) != nullptr) continue;
        if (run_control_.find(thread) != nullptr) {
            record({.thread = thread, .signal = rsp::Signal::none});
            continue;
        }
        if (is_queued(thread)) continue;
        // gdb waits for each thread that it told to stop (infrun.c, stop_all_threads): this one has ended.
        queue_.push_back({.thread = thread, .reply = words_.end_of_thread(thread)});
    }
}

const Thread* NonStop::to_interrupt() {
    const auto runs = [&](const Thread* thread) {
        return thread != nullptr && stopped(thread->tid) == nullptr;
    };
    const auto& threads = run_control_.threads().threads();
    const Thread* last = resumed_last_ ? run_control_.find(*resumed_last_) : nullptr;
    if (runs(last) && last->vcpu) return last;
    const auto on_vcpu =
        std::ranges::find_if(threads, [&](const Thread& thread) { return thread.vcpu && runs(&thread); });
    if (on_vcpu != threads.end()) return &*on_vcpu;
    if (runs(last)) return last;
    const auto any = std::ranges::find_if(threads, [&](const Thread& thread) { return runs(&thread); });
    return any == threads.end() ? nullptr : &*any;
}

Result<void> NonStop::interrupt(bool knows_no_resumed) {
    if (const Thread* thread = to_interrupt()) {
        record({.thread = thread->tid, .signal = rsp::Signal::interrupt});
    } else if (knows_no_resumed) {
        if (!is_queued(0)) queue_.push_back({.thread = 0, .reply = "N"});
    } else {
        return fail(Errc::no_such_thread, "no thread runs");
    }
    return {};
}

// --- the machine ---

Result<void> NonStop::pause() {
    if (stands_) return {};
    auto* execution = machine_.target().execution();
    const auto deadline = std::chrono::steady_clock::now() + pause_limit;
    while (!stands_) {
        // Not RunControl's: that one reports nothing else any more, and an event may come first.
        execution->interrupt();
        auto stop = run_control_.poll(pause_slice);
        if (!stop) {
            stands_ = true;
            return fail(std::move(stop).error());
        }
        if (*stop) {
            stands_ = true;
            if ((*stop)->signal != rsp::Signal::interrupt) note(**stop);
        } else if (std::chrono::steady_clock::now() > deadline) {
            return fail(Errc::timed_out, "the guest does not stop");
        }
    }
    return {};
}

Result<void> NonStop::poll(std::chrono::milliseconds limit) {
    if (!watches()) return {};
    if (stands_) {
        if (auto started = run(); !started) return failed_to_run(started.error());
        if (stands_) return {};
    }
    auto stop = run_control_.poll(limit);
    if (!stop) {
        stands_ = true;
        return failed_to_run(stop.error());
    }
    if (!*stop) return {};
    stands_ = true;
    note(**stop);
    return {};
}

// What could not run is stopped, since the client waits for it: the thread that was to step, else all, and
// then nothing is tried again before the client has said so.
Result<void> NonStop::failed_to_run(const Error& error) {
    if (error.code == Errc::target_gone) return fail(error);
    spdlog::error("running the guest: {}", error.message);
    if (stepping_) {
        record({.thread = *stepping_, .signal = rsp::Signal::none});
    } else {
        stop_vcpus(rsp::Signal::interrupt);
        all_held_ = true;
    }
    return fail(error);
}

// So that their TIDs can be another's.
void NonStop::forget_ended() {
    std::erase_if(stopped_, [&](const auto& entry) {
        const auto& [thread, stopped] = entry;
        return !stopped.thread.vcpu && run_control_.last_threads().find(thread) == nullptr;
    });
}

// Whether the client has stopped every thread, but for those that step. What was stopped in its sleep may
// have been woken before the others were stopped, and be on a vCPU: while gdb steps over a breakpoint that it
// took out, nothing else may run (infrun.c, stop_all_threads).
bool NonStop::all_stopped() const {
    const auto& threads = run_control_.last_threads().threads();
    if (threads.empty() || stopped_.size() + steps_.size() < threads.size()) return false;
    return std::ranges::all_of(threads, [&](const Thread& thread) {
        return stopped(thread.tid) != nullptr ||
               std::ranges::any_of(steps_, [&](const Step& step) { return step.thread.tid == thread.tid; });
    });
}

// The step to make now goes into `request`. Gives the vCPUs that wait for it: those of other steps, and all
// while a task that sleeps is to be stepped too, since it must not be missed.
std::set<VcpuId> NonStop::choose_step(std::optional<Thread>& stepping, rsp::Resume& request) {
    for (auto it = steps_.begin(); it != steps_.end();) {
        const Thread* now = it->begun ? run_control_.find(it->thread.tid) : &it->thread;
        if (now != nullptr) it->thread = *now;
        it = now != nullptr ? std::next(it) : steps_.erase(it);
    }
    std::set<VcpuId> waiting;
    const auto all_wait = [&] {
        for (VcpuId vcpu = 0; vcpu < machine_.target().vcpu_count(); ++vcpu) waiting.insert(vcpu);
    };
    if (all_stopped()) all_wait();
    if (steps_.empty()) return waiting;
    auto chosen = std::ranges::find_if(steps_, [](const Step& step) { return step.thread.vcpu.has_value(); });
    if (chosen == steps_.end()) chosen = steps_.begin();
    chosen->begun = true;
    stepping = chosen->thread;
    request.actions.push_back(chosen->action);
    const bool sleeper = chosen->thread.vcpu && std::ranges::any_of(steps_, [](const Step& step) {
                             return !step.thread.vcpu.has_value();
                         });
    if (sleeper) all_wait();
    for (const Step& step : steps_) {
        if (step.thread.vcpu) waiting.insert(*step.thread.vcpu);
    }
    if (chosen->thread.vcpu) waiting.erase(*chosen->thread.vcpu);
    return waiting;
}

Result<void> NonStop::run() {
    adopt_new_threads();
    forget_ended();
    rsp::Resume request;
    std::set<VcpuId> held;
    for (const auto& [thread, stopped] : stopped_) {
        request.actions.push_back({.kind = ActionKind::stop, .thread = stopped.thread.id()});
        if (stopped.thread.vcpu) held.insert(*stopped.thread.vcpu);
    }
    machine_.keep_registers_of(held);
    std::optional<Thread> stepping;
    held.merge(choose_step(stepping, request));
    stepping_ = stepping ? std::optional{stepping->tid} : std::nullopt;
    request.actions.push_back({});
    all_held_ = held.size() >= machine_.target().vcpu_count();
    if (all_held_) return {};
    CHECK_OK(run_control_.resume_around(request, std::move(held), std::move(stepping)));
    stands_ = false;
    return {};
}

// --- what stops ---

void NonStop::note(const Stop& stop) {
    if (stop.exited) return guest_gone(words_.stop(stop).reply);
    // Not ours: the hypervisor's own tools paused it.
    if (stop.signal == rsp::Signal::interrupt) return stop_vcpus(stop.signal);
    if (!stop.note.empty()) {
        // Of a thread that ended in its step, in whose place another would stop.
        spdlog::info("{}", stop.note);
        if (stepping_) return end_step(*stepping_);
    }
    record(stop);
}

void NonStop::end_step(ThreadKey thread) {
    std::erase_if(steps_, [&](const Step& step) { return step.thread.tid == thread; });
    queue_.push_back({.thread = thread, .reply = words_.end_of_thread(thread)});
}

void NonStop::record(const Stop& stop) {
    std::erase_if(steps_, [&](const Step& step) { return step.thread.tid == stop.thread; });
    const Thread* found = run_control_.find(stop.thread);
    Stopped& stopped = stopped_[stop.thread];
    stopped.thread = found != nullptr ? *found : Thread{.tid = stop.thread};
    const Report report = words_.stop(stop);
    stopped.reply = report.reply;
    stopped.later = report.first_of_two ? std::optional{stop} : std::nullopt;
    queue_.push_back({.thread = stop.thread, .reply = report.reply});
}

void NonStop::stop_vcpus(rsp::Signal signal) {
    std::vector<ThreadKey> running;
    for (const Thread& thread : run_control_.threads().threads()) {
        if (thread.vcpu && stopped(thread.tid) == nullptr) running.push_back(thread.tid);
    }
    for (const ThreadKey thread : running) record({.thread = thread, .signal = signal});
}

// Once the OS has come or gone, none of the threads is left that the client knows. Who is on a held vCPU now
// is stopped, and the client told of it.
void NonStop::adopt_new_threads() {
    if (machine_.os_generation() == os_generation_) return;
    os_generation_ = machine_.os_generation();
    steps_.clear();
    machine_.keep_registers_of({});
    for (const auto& [thread, stopped] : std::exchange(stopped_, {})) {
        if (!stopped.thread.vcpu) continue;
        if (const Thread* now = run_control_.threads().on_vcpu(*stopped.thread.vcpu)) {
            record({.thread = now->tid, .signal = rsp::Signal::none});
        }
    }
}

void NonStop::guest_gone(std::string exit_reply) {
    stands_ = gone_ = true;
    stopped_.clear();
    steps_.clear();
    queue_.push_back({.thread = 0, .reply = std::move(exit_reply)});
}

// --- the queue ---

bool NonStop::is_queued(ThreadKey thread) const {
    return std::ranges::any_of(queue_, [&](const Event& event) { return event.thread == thread; });
}

std::optional<std::string> NonStop::take_notification() {
    if (announced_ || queue_.empty()) return std::nullopt;
    announced_ = true;
    return queue_.front().reply;
}

void NonStop::tell_again() {
    queue_.clear();
    announced_ = false;
    for (const auto& [thread, stopped] : stopped_) {
        queue_.push_back({.thread = thread, .reply = stopped.reply});
    }
}

std::string NonStop::answer_halt_reason() {
    tell_again();
    announced_ = !queue_.empty();
    return announced_ ? queue_.front().reply : "OK";
}

std::string NonStop::answer_acknowledgement() {
    if (announced_) queue_.pop_front();
    announced_ = !queue_.empty();
    return announced_ ? queue_.front().reply : "OK";
}

}  // namespace exo::stub
