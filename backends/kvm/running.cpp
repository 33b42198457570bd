// The guest runs, and stops: of KvmExecution.
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "backends/kvm/child_events.h"
#include "backends/kvm/execution.h"

namespace exo::kvm {
namespace {

using namespace std::chrono_literals;

// How long steps are waited for in the cheap way, and how long for one of several.
constexpr auto posted_steps_limit = 5ms;
constexpr auto posted_slice = 1ms;
// How long the VMM's signals to a vCPU's thread may wait while the guest goes on at one hit after another,
// and how long the end of such a run is waited for before ^C and other vCPUs are looked at.
constexpr auto hot_limit = 10ms;
constexpr auto hot_slice = 500us;
// A single step over one of our breakpoints.
constexpr auto step_limit = 2s;

// Before all others on its processor, if the host lets us (CAP_SYS_NICE). vCPUs that are busy want all
// processors: whoever is to stop them had to wait, in one case of ten, until one of them had used up its turn
// of 3 to 4 ms.
class Urgent {
public:
    Urgent() : policy_(::sched_getscheduler(0)), raised_(is_ordinary(policy_) && set(SCHED_RR, 1)) {}
    Urgent(const Urgent&) = delete;
    Urgent& operator=(const Urgent&) = delete;
    ~Urgent() {
        if (raised_) set(policy_, 0);
    }

private:
    static bool is_ordinary(int policy) {
        return policy == SCHED_OTHER || policy == SCHED_BATCH || policy == SCHED_IDLE;
    }
    static bool set(int policy, int priority) {
        const sched_param parameter{.sched_priority = priority};
        return ::sched_setscheduler(0, policy, &parameter) == 0;
    }
    int policy_;
    bool raised_;
};

}  // namespace

void KvmExecution::interrupt() noexcept {
    const std::uint64_t one = 1;
    static_cast<void>(::write(wake_.get(), &one, sizeof one) == 0);
}

bool KvmExecution::take_interrupt() {
    std::uint64_t count = 0;
    return ::read(wake_.get(), &count, sizeof count) == sizeof count;
}

// What else comes by the line is left to whoever reads it: its being there keeps nobody from waiting.
bool KvmExecution::take_interrupt(pollfd& line) {
    if (take_interrupt() || (line.revents != 0 && line_.is_interrupt())) return true;
    if (line.revents != 0) line = {-1, 0, 0};
    return false;
}

Result<void> KvmExecution::resume(std::span<const VcpuAction> actions) {
    if (!attached_ || running_) return fail(Errc::busy, "the guest is not stopped");
    actions_.assign(actions.begin(), actions.end());
    actions_.resize(vcpus_.size(), VcpuAction::hold);
    ++generation_;
    take_interrupt();
    const auto steps = std::ranges::count(actions_, VcpuAction::step);
    if (held_by_vmm() && (steps > 0 || !software_.empty() || uses_debug_registers()))
        return fail(Errc::busy,
                    "the guest is paused by its VMM: a vCPU cannot step, and breakpoints cannot be armed, "
                    "before it is continued there");
    running_ = true;
    free_ = false;
    hot_.clear();
    if (!events_.empty()) return {};  // told by the next wait_for_stop()
    // Steps alone need no ptrace.
    const bool any_runs = std::ranges::count(actions_, VcpuAction::run) > 0;
    if (any_runs) code_page_ = {};
    auto started = any_runs ? tracer_.run([this] { return start(); }) : start();
    if (!started) {
        static_cast<void>(tracer_.run([this] { return stop_all(); }));
        running_ = free_ = false;
    }
    return started;
}

Result<void> KvmExecution::start() {
    CHECK_OK(step_off_breakpoints());
    if (!events_.empty()) return {};
    const bool all_run = std::ranges::count(actions_, VcpuAction::run) == std::ssize(actions_);
    if (all_run && software_.empty() && !uses_debug_registers()) {  // there is nothing to watch for
        for (auto& vcpu : vcpus_) {
            CHECK_OK(vcpu->set_guest_debug({}));
            CHECK_OK(vcpu->stop_asking());
        }
        free_ = true;
        return release_all();
    }
    for (VcpuId id = 0; id < vcpus_.size(); ++id) CHECK_OK(run_one(id, actions_[id]));
    return {};
}

Result<void> KvmExecution::run_one(VcpuId id, VcpuAction action) {
    auto& vcpu = *vcpus_.at(id);
    if (action == VcpuAction::hold) return {};
    if (action != VcpuAction::step) {
        before_step_.erase(id);  // one that was cut short
        CHECK_OK(vcpu.set_guest_debug(debug_state(false)));
        return vcpu.run();
    }
    return begin_step(id);
}

Result<void> KvmExecution::begin_step(VcpuId id) {
    auto& vcpu = *vcpus_.at(id);
    CHECK_OK(vcpu.set_guest_debug(TRY(debug_state_of_step(id))));
    before_step_[id] = TRY(vcpu.run_area()).s.regs.regs;
    return vcpu.run_from_board(Vcpu::Posted::step);
}

// Of those that stand on one of our breakpoints: the instruction under it, with all others held.
Result<void> KvmExecution::step_off_breakpoints() {
    if (software_.empty()) return {};
    for (VcpuId id = 0; id < vcpus_.size(); ++id) {
        if (actions_[id] == VcpuAction::hold) continue;
        const auto area = TRY(vcpus_[id]->run_area());
        const auto found = software_.find(area.s.regs.regs.rip);
        if (found == software_.end()) continue;
        CHECK_OK(write_byte(found->second.place, found->second.original));
        auto event = step_alone(id);
        CHECK_OK(write_byte(found->second.place, breakpoint_byte));
        CHECK_OK(event);
        const bool is_step = *event && (*event)->cause == StopEvent::Cause::step;
        if (*event && (!is_step || actions_[id] == VcpuAction::step)) events_.push_back(**event);
    }
    return {};
}

Result<std::optional<StopEvent>> KvmExecution::step_alone(VcpuId id) {
    auto& vcpu = *vcpus_.at(id);
    CHECK_OK(begin_step(id));
    const auto exit = TRY(vcpu.wait_exit(Clock::now() + step_limit));
    if (exit.kind == RunExit::Kind::debug) return translate_exit(id, exit.debug);
    if (exit.kind == RunExit::Kind::gone) return fail(vmm_gone());
    vcpu.ask_to_stop();
    CHECK_OK(settle());
    return std::optional<StopEvent>{};
}

// After ^C the client is told first: steps are less likely, and park a thread as they need it.
Result<void> KvmExecution::stop_and_make_ready(bool for_steps) {
    CHECK_OK(stop_all());
    for (auto& vcpu : vcpus_) CHECK_OK(vcpu->make_ready(for_steps));
    return {};
}

Result<std::optional<StopEvent>> KvmExecution::stopped(StopEvent event) {
    if (!std::ranges::all_of(vcpus_, [](const auto& vcpu) { return vcpu->stopped(); }))
        CHECK_OK(
            tracer_.run([&] { return stop_and_make_ready(event.cause != StopEvent::Cause::interrupt); }));
    running_ = false;
    ++generation_;
    return event;
}

Result<std::optional<StopEvent>> KvmExecution::wait_for_stop(std::chrono::milliseconds limit) {
    auto event = wait(limit);
    if (event && *event && (*event)->cause != StopEvent::Cause::exited && look_) look_(false);
    const bool lost = !event && event.error().code == Errc::target_gone;
    if (!lost || !process_.ending()) return event;
    running_ = free_ = false;  // wherever it was found out
    return StopEvent{.cause = StopEvent::Cause::exited};
}

Result<std::optional<StopEvent>> KvmExecution::wait(std::chrono::milliseconds limit) {
    const auto deadline = Clock::now() + limit;
    if (!running_) return StopEvent{};
    if (!events_.empty()) {
        const auto event = events_.front();
        events_.pop_front();
        return stopped(event);
    }
    if (free_) return tracer_.run([&] { return wait_free(deadline); });
    if (auto event = TRY(wait_for_steps(std::min(deadline, Clock::now() + posted_steps_limit)))) return event;
    return tracer_.run([&] { return wait_traced(deadline); });
}

// Steps end soon, and are then seen without a stop under ptrace. Nothing if some vCPU does anything else.
Result<std::optional<StopEvent>> KvmExecution::wait_for_steps(Clock::time_point deadline) {
    std::vector<const Vcpu*> posted;
    posted.reserve(vcpus_.size());
    for (;;) {
        posted.clear();
        for (VcpuId id = 0; id < vcpus_.size(); ++id) {
            if (vcpus_[id]->stopped()) continue;
            if (!vcpus_[id]->posted()) return std::optional<StopEvent>{};
            if (auto event = TRY(look_at(id))) return stopped(*event);
            if (vcpus_[id]->posted()) posted.push_back(vcpus_[id].get());
        }
        if (take_interrupt()) return stopped({.cause = StopEvent::Cause::interrupt});
        if (posted.empty() || Clock::now() >= deadline) return std::optional<StopEvent>{};
        if (posted.size() == 1)
            static_cast<void>(posted.front()->wait_posted(std::min(deadline, Clock::now() + posted_slice)));
        else
            Vcpu::wait_for_any(posted, posted_slice);
    }
}

Result<std::optional<StopEvent>> KvmExecution::wait_traced(Clock::time_point deadline) {
    std::array<pollfd, 2> others{pollfd{wake_.get(), POLLIN, 0}, pollfd{line_.descriptor, POLLIN, 0}};
    for (;;) {
        for (VcpuId id = 0; id < vcpus_.size(); ++id) {
            if (vcpus_[id]->stopped()) continue;
            if (auto event = TRY(look_at(id))) return stopped(*event);
        }
        if (take_interrupt(others[1])) return stopped({.cause = StopEvent::Cause::interrupt});
        if (Clock::now() >= deadline) return std::optional<StopEvent>{};
        const auto hot = watch_all_but_hot();
        if (hot.empty()) {
            const Urgent urgent;
            wait_for_child(deadline, others);
        } else {
            Vcpu::wait_for_any(hot, hot_slice);
        }
    }
}

bool KvmExecution::is_hot(VcpuId id) const {
    const auto found = hot_.find(id);
    return found != hot_.end() && Clock::now() < found->second;
}

// Those whose end raises no SIGCHLD.
std::vector<const Vcpu*> KvmExecution::watch_all_but_hot() {
    std::vector<const Vcpu*> hot;
    hot.reserve(vcpus_.size());
    for (VcpuId id = 0; id < vcpus_.size(); ++id) {
        if (!vcpus_[id]->posted()) continue;
        if (is_hot(id))
            hot.push_back(vcpus_[id].get());
        else
            vcpus_[id]->watch();
    }
    return hot;
}

Result<std::optional<StopEvent>> KvmExecution::look_at(VcpuId id) {
    const auto exit = TRY(vcpus_.at(id)->poll_exit());
    if (exit.kind == RunExit::Kind::debug) {
        auto event = TRY(translate_exit(id, exit.debug));
        if (event && TRY(goes_on(*event))) event.reset();
        return event;
    }
    if (exit.kind != RunExit::Kind::gone) return std::optional<StopEvent>{};
    if (process_.ending()) return StopEvent{.cause = StopEvent::Cause::exited};
    return fail(Errc::backend, "the thread of vCPU " + std::to_string(id) + " has ended");
}

// A hit that is nobody's, told with the other vCPUs as they run. The next one is mostly near: the run to it
// is posted, which is several times as fast as one under ptrace, but keeps the VMM's signals waiting; so now
// and then there is one of those.
Result<bool> KvmExecution::goes_on(const StopEvent& event) {
    const bool hit =
        event.cause == StopEvent::Cause::breakpoint || event.cause == StopEvent::Cause::hardware_breakpoint;
    if (!hit || !judge_ || actions_.at(event.vcpu) != VcpuAction::run || !TRY(judge_(event))) return false;
    const auto [hot, begins] = hot_.try_emplace(event.vcpu, Clock::now() + hot_limit);
    if (!begins && !is_hot(event.vcpu)) {
        hot_.erase(hot);
        CHECK_OK(run_one(event.vcpu, VcpuAction::run));
    } else {
        CHECK_OK(vcpus_.at(event.vcpu)->run_from_board(Vcpu::Posted::run));
    }
    return true;
}

// Untraced: the VMM's end and the client's interrupt are all that can come.
Result<std::optional<StopEvent>> KvmExecution::wait_free(Clock::time_point deadline) {
    const Urgent urgent;
    std::array<pollfd, 3> events{pollfd{wake_.get(), POLLIN, 0}, pollfd{process_.pidfd(), POLLIN, 0},
                                 pollfd{line_.descriptor, POLLIN, 0}};
    for (;;) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
        const int count =
            ::poll(events.data(), events.size(), static_cast<int>(std::max<std::int64_t>(left, 0)));
        if (events[1].revents != 0) {
            running_ = free_ = false;
            return StopEvent{.cause = StopEvent::Cause::exited};
        }
        if (take_interrupt(events[2])) break;
        if (count <= 0) return std::optional<StopEvent>{};
    }
    free_ = false;
    return stopped({.cause = StopEvent::Cause::interrupt});
}

}  // namespace exo::kvm
