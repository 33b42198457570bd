#include "backends/kvm/execution.h"

#include <asm/unistd.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
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

constexpr auto hold_limit = 2s;
constexpr int thread_tries = 20;

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
        vcpus_.push_back(std::make_unique<Vcpu>(vm.vcpus[i], i, vmm_, tracer_));
    watch_children();
}

KvmExecution::~KvmExecution() { static_cast<void>(detach()); }

bool KvmExecution::held_by_vmm() const {
    return std::ranges::any_of(vcpus_, [](const auto& vcpu) { return vcpu->held(); });
}

// --- taking and giving back

Result<StopEvent> KvmExecution::attach() {
    auto event = tracer_.run([this] { return attach_traced(); });
    if (event && look_) look_(true);
    return event;
}

Result<StopEvent> KvmExecution::attach_traced() {
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
    return tracer_.run([this] { return detach_traced(); });
}

Result<void> KvmExecution::detach_traced() {
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

// Of a vCPU that was asked to stop: what has become of it.
Result<bool> KvmExecution::is_settled(Vcpu& vcpu) {
    const auto exit = TRY(vcpu.poll_exit());
    if (exit.kind == RunExit::Kind::gone) return fail(vmm_gone());
    if (exit.kind == RunExit::Kind::debug) {
        // It has stopped by itself at the same time. A breakpoint is hit again when it goes on, if it is
        // still wanted then, and the end of a step is seen where it stands; what a watchpoint saw would be
        // lost.
        const auto event = TRY(translate_exit(vcpu.index(), exit.debug));
        if (!event) return is_settled(vcpu);  // the guest's own
        const bool watched = event->cause == StopEvent::Cause::write_watch ||
                             event->cause == StopEvent::Cause::read_watch ||
                             event->cause == StopEvent::Cause::access_watch;
        if (watched) events_.push_back(*event);
    }
    return vcpu.stopped();
}

// All of them together: a thread on its way to KVM_RUN may have to wait for another (QEMU has one lock for
// all devices), and that one has stopped under ptrace a few times before it is where it stays.
Result<void> KvmExecution::settle() {
    const auto begin = Clock::now();
    Insistence again{begin + settle_limit};
    for (;;) {
        std::vector<Vcpu*> late;
        for (auto& vcpu : vcpus_)
            if (!vcpu->free() && !vcpu->stopped() && !TRY(is_settled(*vcpu))) late.push_back(vcpu.get());
        if (late.empty()) return {};
        const auto now = Clock::now();
        const auto deadline = begin + settle_limit + hold_limit;
        if (now >= deadline) {
            const Vcpu& vcpu = *late.front();
            return fail(Errc::timed_out, "vCPU " + std::to_string(vcpu.handle().id) +
                                             " does not stop: its thread " + std::to_string(vcpu.tid()) +
                                             " is neither in the guest nor waiting for anything");
        }
        if (again.is_due(now))
            for (Vcpu* vcpu : late) vcpu->insist();
        wait_for_child(std::min(deadline, again.next()));
    }
}

Result<void> KvmExecution::stop_all() {
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
        if (vcpu->stopped()) continue;
        if (!vcpu->free())
            vcpu->ask_to_stop();
        else if (const auto row = threads_.find(vcpu->index()); row != threads_.end())
            CHECK_OK(vcpu->begin_stop(row->second));
    }
    CHECK_OK(settle());
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
    board_ = TRY(build_springboard(first.thread(), vmm_, vcpu_count(), board_data_));
    journal_.board = board_;
    CHECK_OK(write_journal(journal_));
    for (auto& vcpu : vcpus_) {
        vcpu->use(&board_, board_data_.data());
        map_run_area(*vcpu);
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

// Through a descriptor of our own, since 5.6; without it kvm_run is read and written in the VMM.
void KvmExecution::map_run_area(Vcpu& vcpu) const {
    const FileDescriptor file{
        static_cast<int>(::syscall(SYS_pidfd_getfd, process_.pidfd(), vcpu.handle().fd, 0))};
    if (!file.valid()) return;
    if (auto pages = MappedPages::map(file.get(), sizeof(kvm_run))) vcpu.use_run_area(*std::move(pages));
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
        board_data_ = {};
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
    return tracer_.run([&] { return stop_for(work); });
}

Result<void> KvmExecution::stop_for(const std::function<Result<void>()>& work) {
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

}  // namespace exo::kvm
