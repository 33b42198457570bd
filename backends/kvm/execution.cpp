#include "backends/kvm/execution.h"

#include <asm/unistd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "backends/kvm/child_events.h"
#include "backends/kvm/recover.h"
#include "backends/kvm/threads.h"

namespace exo::kvm {
namespace {

using namespace std::chrono_literals;

// How long a vCPU may take to come to its next KVM_RUN. One that does not is paused by its VMM, or the VMM is
// busy with something that it should not do there.
constexpr auto settle_limit = 500ms;
constexpr auto hold_limit = 2s;
constexpr int thread_tries = 20;
// A single step over one of our breakpoints.
constexpr auto step_limit = 2s;

}  // namespace

KvmExecution::KvmExecution(const Vm& vm, const Process& process, SlotMemory& memory, std::string target)
    : vm_(vm),
      process_(process),
      memory_(memory),
      vmm_(vm.pid),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    journal_.target = std::move(target);
    journal_.vmm_pid = vm.pid;
    journal_.vmm_start = process.start_time();
    journal_.vm_fd = vm.fd;
    for (std::uint32_t i = 0; i < vm.vcpus.size(); ++i)
        vcpus_.push_back(std::make_unique<Vcpu>(vm.vcpus[i], i, vmm_));
    watch_children();
}

KvmExecution::~KvmExecution() { static_cast<void>(detach()); }

bool KvmExecution::held_by_vmm() const {
    return std::ranges::any_of(vcpus_, [](const auto& vcpu) { return vcpu->held(); });
}

// --- taking and giving back

Result<StopEvent> KvmExecution::attach() {
    if (attached_ && !running_) return StopEvent{};
    if (!process_.alive()) return fail(vmm_gone());
    CHECK_OK(recover_stale(journal_));
    CHECK_OK(take());
    attached_ = true;
    running_ = free_ = false;
    events_.clear();
    take_interrupt();
    return StopEvent{};
}

Result<void> KvmExecution::detach() {
    if (!taken_ && !attached_) return {};
    if (running_ && !free_) CHECK_OK(stop_all());
    if (free_) CHECK_OK(take());
    CHECK_OK(remove_all());
    auto given = give_back();
    attached_ = running_ = free_ = false;
    ++generation_;
    return given;
}

// Stops the guest, and makes ready for ioctls.
Result<void> KvmExecution::take() {
    ++generation_;
    if (!taken_) CHECK_OK(begin_journal(journal_, vm_, vmm_));
    taken_ = true;
    auto stopped = stop_all();
    if (stopped && !board_.present()) stopped = build_board();
    if (!stopped) static_cast<void>(give_back());
    return stopped;
}

Result<void> KvmExecution::settle(Vcpu& vcpu, Clock::time_point deadline) {
    const auto exit = TRY(vcpu.wait_exit(deadline));
    switch (exit.kind) {
        case RunExit::Kind::interrupted: return {};
        case RunExit::Kind::gone: return fail(vmm_gone());
        case RunExit::Kind::debug: {
            // It has stopped by itself at the same time. A breakpoint is hit again when it goes on, if it is
            // still wanted then, and the end of a step is seen where it stands; what a watchpoint saw would
            // be lost.
            const auto event = TRY(translate_exit(vcpu.index(), exit.debug));
            if (!event) return settle(vcpu, deadline);  // the guest's own
            const bool watched = event->cause == StopEvent::Cause::write_watch ||
                                 event->cause == StopEvent::Cause::read_watch ||
                                 event->cause == StopEvent::Cause::access_watch;
            if (watched) events_.push_back(*event);
            return {};
        }
        case RunExit::Kind::none: break;
    }
    if (TRY(vcpu.hold(vcpu.tid(), Clock::now() + hold_limit))) return {};
    return fail(Errc::timed_out, "vCPU " + std::to_string(vcpu.handle().id) + " does not stop: its thread " +
                                     std::to_string(vcpu.tid()) +
                                     " is neither in the guest nor waiting for anything");
}

Result<void> KvmExecution::stop_all(std::optional<VcpuId> but) {
    for (auto& vcpu : vcpus_) CHECK_OK(vcpu->ask_for_registers());
    const auto is_known = [&](const auto& vcpu) { return !vcpu->free() || threads_.contains(vcpu->index()); };
    std::vector<pid_t> waiting;
    std::optional<Error> refused;
    if (!std::ranges::all_of(vcpus_, is_known)) {
        auto found = find_threads(vm_, thread_tries);
        for (auto& vcpu : vcpus_)
            if (const auto row = found.by_vcpu.find(vcpu->handle().fd); row != found.by_vcpu.end())
                threads_[vcpu->index()] = row->second;
        waiting = std::move(found.waiting);
        refused = std::move(found.refused);
    }
    for (auto& vcpu : vcpus_) {
        if (vcpu->stopped() || but == vcpu->index()) continue;
        if (!vcpu->free())
            vcpu->ask_to_stop();
        else if (const auto row = threads_.find(vcpu->index()); row != threads_.end())
            CHECK_OK(vcpu->begin_stop(row->second));
    }
    const auto deadline = Clock::now() + settle_limit;
    for (auto& vcpu : vcpus_) {
        if (vcpu->stopped() || vcpu->free() || but == vcpu->index()) continue;
        CHECK_OK(settle(*vcpu, deadline));
    }
    // No thread runs these: the VMM has paused them, or has not begun yet.
    for (auto& vcpu : vcpus_) {
        if (!vcpu->free()) continue;
        if (refused) return fail(*std::move(refused));
        bool held = false;
        while (!held && !waiting.empty()) {
            const pid_t tid = waiting.back();
            waiting.pop_back();
            held = vcpu->hold(tid, Clock::now() + hold_limit).value_or(false);
        }
        if (!held)
            return fail(Errc::busy, "vCPU " + std::to_string(vcpu->handle().id) +
                                        " is run by no thread of its VMM, and none is free to ask for it");
    }
    return {};
}

Result<void> KvmExecution::build_board() {
    auto& first = *vcpus_.front();
    CHECK_OK(first.make_exit_harmless());
    board_ = TRY(build_springboard(first.thread(), vmm_, vcpu_count()));
    journal_.board = board_;
    CHECK_OK(write_journal(journal_));
    for (auto& vcpu : vcpus_) {
        vcpu->use(&board_);
        // What was emulated is completed, and what is held shows its registers.
        CHECK_OK(vcpu->refresh());
    }
    // Which flags KVM_SET_GUEST_DEBUG takes, since 5.16: with KVM_GUESTDBG_BLOCKIRQ no interrupt is taken in
    // a step, whose handler would return to the guest with the trap flag set.
    if (!debug_flags_)
        debug_flags_ =
            static_cast<std::uint64_t>(std::max<std::int64_t>(TRY(extension(KVM_CAP_SET_GUEST_DEBUG2)), 0));
    return {};
}

Result<void> KvmExecution::give_back() {
    Result<void> result;
    const auto keep = [&](Result<void> next) {
        if (result && !next) result = std::move(next);
    };
    for (auto& vcpu : vcpus_) {
        if (!vcpu->stopped()) continue;
        keep(vcpu->set_guest_debug({}));
        // The guest's watchdogs are told that it stood (KVM_KVMCLOCK_CTRL; EINVAL: it has no kvmclock).
        if (board_.present())
            static_cast<void>(
                vcpu->call(__NR_ioctl, static_cast<std::uint64_t>(vcpu->handle().fd), KVM_KVMCLOCK_CTRL));
    }
    for (auto& vcpu : vcpus_) keep(vcpu->stop_asking());
    for (auto& vcpu : vcpus_)
        if (vcpu->stopped()) keep(vcpu->stand_home());
    if (board_.present()) {
        auto& first = *vcpus_.front();
        if (first.stopped()) {
            keep(first.make_exit_harmless());
            keep(remove_springboard(first.thread(), vmm_, board_));
        }
        board_ = journal_.board = {};
        for (auto& vcpu : vcpus_) vcpu->use(nullptr);
    }
    keep(release_all());
    taken_ = false;
    if (result || result.error().code == Errc::target_gone) remove_journal(journal_);
    return result;
}

Result<void> KvmExecution::release_all() {
    Result<void> result;
    for (auto& vcpu : vcpus_)
        if (auto released = vcpu->release(); result && !released) result = std::move(released);
    return result;
}

Result<void> KvmExecution::while_stopped(const std::function<Result<void>()>& work) {
    if (attached_ && !running_) return work();
    if (running_ && !free_) return fail(Errc::busy, "the guest runs with breakpoints: stop it first");
    const bool was_attached = attached_;
    if (!was_attached) CHECK_OK(recover_stale(journal_));
    CHECK_OK(take());
    auto done = work();
    auto left = was_attached ? release_all() : give_back();
    return done ? left : done;
}

Result<std::int64_t> KvmExecution::extension(std::uint64_t capability) {
    return vcpus_.front()->call(__NR_ioctl, static_cast<std::uint64_t>(vm_.fd), KVM_CHECK_EXTENSION,
                                capability);
}

Result<std::optional<PhysicalAddress>> KvmExecution::translate(VcpuId id, VirtualAddress address) {
    kvm_translation translation{.linear_address = raw(address)};
    const auto bytes = std::as_writable_bytes(std::span{&translation, 1});
    const auto result = TRY(vcpus_.at(id)->ioctl(KVM_TRANSLATE, bytes, bytes));
    if (result < 0) return fail(Errc::backend, "KVM_TRANSLATE fails");
    if (translation.valid == 0) return std::nullopt;
    return PhysicalAddress{translation.physical_address};
}

// --- running

void KvmExecution::interrupt() noexcept {
    const std::uint64_t one = 1;
    static_cast<void>(::write(wake_.get(), &one, sizeof one) == 0);
}

bool KvmExecution::take_interrupt() {
    std::uint64_t count = 0;
    return ::read(wake_.get(), &count, sizeof count) == sizeof count;
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
    if (!events_.empty()) return {};  // told by the next wait_for_stop()
    auto started = step_off_breakpoints();
    if (started && events_.empty()) {
        const bool nothing_to_watch = software_.empty() && steps == 0 &&
                                      !std::ranges::count(actions_, VcpuAction::hold) &&
                                      !uses_debug_registers();
        if (nothing_to_watch) {
            for (auto& vcpu : vcpus_) {
                CHECK_OK(vcpu->set_guest_debug({}));
                CHECK_OK(vcpu->stop_asking());
            }
            free_ = true;
            return release_all();
        }
        for (VcpuId id = 0; id < vcpus_.size() && started; ++id) started = run_one(id, actions_[id]);
    }
    if (!started) {
        static_cast<void>(stop_all());
        running_ = false;
    }
    return started;
}

Result<void> KvmExecution::run_one(VcpuId id, VcpuAction action) {
    auto& vcpu = *vcpus_.at(id);
    if (action == VcpuAction::hold) return {};
    CHECK_OK(vcpu.set_guest_debug(debug_state(action == VcpuAction::step)));
    if (action != VcpuAction::step) return vcpu.run();
    before_step_[id] = TRY(vcpu.run_area()).s.regs.regs;
    return vcpu.run_from_board();
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
    CHECK_OK(vcpu.set_guest_debug(debug_state(true)));
    before_step_[id] = TRY(vcpu.run_area()).s.regs.regs;
    CHECK_OK(vcpu.run_from_board());
    const auto exit = TRY(vcpu.wait_exit(Clock::now() + step_limit));
    if (exit.kind == RunExit::Kind::debug) return translate_exit(id, exit.debug);
    if (exit.kind == RunExit::Kind::gone) return fail(vmm_gone());
    vcpu.ask_to_stop();
    CHECK_OK(settle(vcpu, Clock::now() + settle_limit));
    return std::optional<StopEvent>{};
}

Result<std::optional<StopEvent>> KvmExecution::stopped(StopEvent event) {
    CHECK_OK(stop_all());
    running_ = false;
    ++generation_;
    return event;
}

Result<std::optional<StopEvent>> KvmExecution::wait_for_stop(std::chrono::milliseconds limit) {
    const auto deadline = Clock::now() + limit;
    if (!running_) return StopEvent{};
    if (!events_.empty()) {
        const auto event = events_.front();
        events_.pop_front();
        return stopped(event);
    }
    if (free_) return wait_free(deadline);
    for (;;) {
        for (VcpuId id = 0; id < vcpus_.size(); ++id) {
            if (vcpus_[id]->stopped()) continue;
            if (auto event = TRY(look_at(id))) return stopped(*event);
        }
        if (take_interrupt()) return stopped({.cause = StopEvent::Cause::interrupt});
        if (Clock::now() >= deadline) return std::optional<StopEvent>{};
        wait_for_child(deadline, wake_.get());
    }
}

Result<std::optional<StopEvent>> KvmExecution::look_at(VcpuId id) {
    const auto exit = TRY(vcpus_.at(id)->poll_exit());
    if (exit.kind == RunExit::Kind::debug) return translate_exit(id, exit.debug);
    if (exit.kind != RunExit::Kind::gone) return std::optional<StopEvent>{};
    if (!process_.alive()) return StopEvent{.cause = StopEvent::Cause::exited};
    return fail(Errc::backend, "the thread of vCPU " + std::to_string(id) + " has ended");
}

// Untraced: the VMM's end and the client's interrupt are all that can come.
Result<std::optional<StopEvent>> KvmExecution::wait_free(Clock::time_point deadline) {
    std::array<pollfd, 2> events{pollfd{wake_.get(), POLLIN, 0}, pollfd{process_.pidfd(), POLLIN, 0}};
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    ::poll(events.data(), events.size(), static_cast<int>(std::max<std::int64_t>(left, 0)));
    if (events[1].revents != 0) {
        running_ = free_ = false;
        return StopEvent{.cause = StopEvent::Cause::exited};
    }
    if (!take_interrupt()) return std::optional<StopEvent>{};
    free_ = false;
    return stopped({.cause = StopEvent::Cause::interrupt});
}

}  // namespace exo::kvm
