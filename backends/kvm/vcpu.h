// One vCPU of a stopped or traced VMM: its thread, its struct kvm_run, and the ioctls that are made for it.
//
// Where the thread of an attached vCPU is:
//   free    not traced; the VMM has it
//   home    stopped in the VMM, just behind its ioctl(KVM_RUN)
//   away    in the springboard, where system calls of ours are made: stopped, or `parked`: running, in the
//           loop that takes them out of its mailbox
//   vmm     running, traced, in the VMM's own code: on its way to the next KVM_RUN
//   guest   running, traced, in the VMM's KVM_RUN, which is made to come back to the springboard
// A vCPU that its VMM has paused is `held`: some thread of the VMM makes the ioctls for it, nobody runs it.
#pragma once

#include <linux/kvm.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "backends/kvm/springboard.h"
#include "backends/kvm/tracer.h"
#include "backends/kvm/vm.h"

namespace exo::kvm {

using Clock = std::chrono::steady_clock;

// How a KVM_RUN ended.
struct RunExit {
    enum class Kind : std::uint8_t {
        none,         // still running
        debug,        // KVM_EXIT_DEBUG: `debug` says why
        interrupted,  // by us or by the VMM's signal
        gone,         // the thread has ended
    };
    Kind kind = Kind::none;
    kvm_debug_exit_arch debug{};
};

// When a thread that was asked to stop is asked again. A thread that is stopped as soon as it goes on
// executes nothing: so it is left alone for longer each time.
class Insistence {
public:
    explicit Insistence(Clock::time_point first) : next_(first) {}
    [[nodiscard]] Clock::time_point next() const { return next_; }
    bool is_due(Clock::time_point now) {
        if (now < next_) return false;
        next_ = now + pause_;
        pause_ = std::min(2 * pause_, longest_pause);
        return true;
    }

private:
    static constexpr std::chrono::microseconds longest_pause{20000};
    std::chrono::microseconds pause_{100};
    Clock::time_point next_;
};

class Vcpu {
public:
    // `memory` and `tracer` outlive it. All of it can be called from any thread, one at a time.
    Vcpu(VcpuHandle handle, std::uint32_t index, const RemoteMemory& memory, Tracer& tracer)
        : handle_(handle), index_(index), memory_(&memory), tracer_(&tracer) {}

    enum class Place : std::uint8_t { free, home, away, vmm, guest };
    [[nodiscard]] const VcpuHandle& handle() const { return handle_; }
    [[nodiscard]] std::uint32_t index() const { return index_; }
    [[nodiscard]] Place place() const { return place_; }
    [[nodiscard]] bool free() const { return place_ == Place::free; }
    [[nodiscard]] bool stopped() const {
        return place_ == Place::home || (place_ == Place::away && !on_board_ && !posted_);
    }
    // Its KVM_RUN was posted, and is not seen to have ended.
    [[nodiscard]] bool posted() const { return posted_; }
    [[nodiscard]] bool held() const { return held_; }
    // Of the thread that runs it, once that was seen to; 0 before.
    [[nodiscard]] pid_t tid() const { return tid_; }
    [[nodiscard]] TracedThread& thread() { return *thread_; }

    // --- stopping

    // From now on KVM leaves the registers in kvm_run at each exit; before the thread is stopped.
    Result<void> ask_for_registers();
    Result<void> stop_asking();
    // free → vmm: seizes the thread and asks it to stop.
    Result<void> begin_stop(pid_t tid);
    // A running one: its KVM_RUN, or the next one, is to come back.
    void ask_to_stop();
    // The same of one that does not come to its KVM_RUN: from now on it is stopped, and held, in any other
    // system call too. When to ask again is what Insistence says.
    void insist();
    // For a vCPU that no thread runs: a thread of the VMM which stands in another system call makes its
    // ioctls. False if it does not stop in one until `deadline`.
    Result<bool> hold(pid_t tid, Clock::time_point deadline);

    // --- while stopped

    // The springboard, and its data as this process has them; none of the latter: all calls are made under
    // ptrace.
    void use(const Springboard* board, std::byte* data = nullptr);
    // kvm_run as this process has it, where the kernel lets it be mapped.
    void use_run_area(MappedPages pages) { run_pages_ = std::move(pages); }
    // Of a stopped one: its calls cost little from then on, and what is asked for most is under way. Without
    // `for_steps` only where registers need a call.
    Result<void> make_ready(bool for_steps);
    // Makes a system call: home → away. Its result, a negative errno where it fails.
    Result<std::int64_t> call(std::int64_t number, std::uint64_t a = 0, std::uint64_t b = 0,
                              std::uint64_t c = 0);
    // An ioctl of the vCPU with a structure: `in` goes there before, `out` comes from there afterwards.
    Result<std::int64_t> ioctl(std::uint64_t request, std::span<const std::byte> in,
                               std::span<std::byte> out = {});
    // One KVM_RUN that comes back at once: loads what was written to kvm_run, completes what the VMM has
    // emulated, stores the registers.
    Result<void> refresh();
    // As KVM has left it at the last exit.
    Result<kvm_run> run_area() const;
    // MSR_KERNEL_GS_BASE, nothing where KVM does not have it; asked for already when it stops in user mode.
    Result<std::optional<std::uint64_t>> kernel_gs_base();
    // Nothing where KVM does not have it.
    Result<std::optional<std::uint64_t>> msr(std::uint32_t index);
    // False if KVM does not take it.
    Result<bool> set_kernel_gs_base(std::uint64_t value);
    // As they were when it was stopped last or had made its last step.
    [[nodiscard]] const kvm_regs& last_registers() const { return last_; }
    // Which of them: KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS.
    Result<void> write_sync_registers(const kvm_sync_regs& values, std::uint64_t fields);
    // The same of rip alone, loaded by the next KVM_RUN.
    Result<void> move_to(std::uint64_t rip);
    Result<void> set_guest_debug(const kvm_guest_debug& debug);
    void forget_guest_debug() { debug_known_ = false; }
    // Back from the springboard, which goes away.
    Result<void> stand_home() { return go_home(); }
    // Before call_in_place(): should exogdb be killed in it, the VMM takes the call's end for an exit of
    // KVM_RUN. It then finds an access to a device, of no bytes.
    Result<void> make_exit_harmless();

    // --- running

    // → vmm. The thread goes on in the VMM; at its next KVM_RUN it is met, and sent into the guest.
    Result<void> run();
    // A KVM_RUN of ours, posted: of a step, or of a run that is to be short, since all the thread's signals
    // wait for its end.
    enum class Posted : std::uint8_t { step, run };
    Result<void> run_from_board(Posted what);
    // What has become of a running one, without waiting.
    Result<RunExit> poll_exit();
    // Of a posted one: whether its end is there by then. It raises no SIGCHLD.
    [[nodiscard]] bool wait_posted(Clock::time_point deadline) const;
    // Until one of several posted ones has ended, or for `limit`.
    static void wait_for_any(std::span<const Vcpu* const> posted, std::chrono::microseconds limit);
    // A posted one lasts: from now on its end is a stop under ptrace.
    void watch();
    // The same, waiting.
    Result<RunExit> wait_exit(Clock::time_point deadline);
    // stopped → free.
    Result<void> release();

private:
    Result<bool> hold_traced(pid_t tid, Clock::time_point deadline);
    Result<RunExit> take_interrupted_stop();
    void let_go();
    Result<void> go_away();
    Result<void> go_home();
    Result<void> park();
    Result<void> unpark();
    Result<std::int64_t> call_traced(std::int64_t number, std::uint64_t a, std::uint64_t b, std::uint64_t c);
    [[nodiscard]] Mailbox& mailbox() const;
    // A field of kvm_run.
    template <class T>
    Result<void> put_run(std::size_t offset, const T& value) {
        if (!run_pages_.present()) return memory_->put(handle_.run + offset, value);
        std::memcpy(run_pages_.data() + offset, &value, sizeof value);
        return {};
    }
    template <class T>
    Result<T> get_run(std::size_t offset) const {
        if (!run_pages_.present()) return memory_->get<T>(handle_.run + offset);
        T value{};
        std::memcpy(&value, run_pages_.data() + offset, sizeof value);
        return value;
    }
    [[nodiscard]] CallRequest gs_request() const;
    void take_gs(const CallRequest& call);
    Result<void> finish_gs();
    Result<bool> in_user_mode() const;
    Result<void> await();
    Result<void> put_record(const ThreadRecord& record);
    std::int64_t take_posted();
    Result<RunExit> take_parked_stop();
    Result<void> prepare_call(std::int64_t number, std::uint64_t a, std::uint64_t b, std::uint64_t c);
    Result<void> give_to_vmm(std::int64_t result);
    Result<RunExit> returned(std::int64_t result);
    Result<RunExit> take_stop(const ThreadStop& stop);
    Result<RunExit> take_syscall_stop();
    Result<RunExit> take_over(ThreadRegisters registers);
    Result<void> set_halted(bool halted);
    Result<void> enter_from_board();
    Result<void> send_into_guest(ThreadRegisters registers);
    Result<void> set_immediate_exit(bool value);
    [[nodiscard]] bool is_run(const ThreadRegisters& registers) const;
    Result<void> keep_record(bool mask_saved);

    VcpuHandle handle_;
    std::uint32_t index_;
    const RemoteMemory* memory_;
    Tracer* tracer_;
    const Springboard* board_ = nullptr;
    std::byte* board_data_ = nullptr;
    MappedPages run_pages_;
    std::optional<TracedThread> thread_;
    pid_t tid_ = 0;
    Place place_ = Place::free;
    bool held_ = false;
    bool stopping_ = false;        // KVM_RUN is to come back at once
    bool insisting_ = false;       // any other system call will do
    bool immediate_exit_ = false;  // as we have set it
    bool stepping_ = false;        // the KVM_RUNs are ours, until it has stopped
    bool halted_ = false;          // by us, while the VMM has it
    bool on_board_ = false;        // away, in a KVM_RUN under ptrace
    bool parked_ = false;          // away, and not stopped
    bool posted_ = false;          // parked, in a KVM_RUN
    bool interrupting_ = false;    // posted, and asked to stop
    bool masked_ = false;          // away, with all signals blocked
    ThreadRegisters home_{};       // while it is home, away or in `guest`
    std::uint64_t mask_ = 0;
    kvm_regs last_{};
    std::optional<std::uint64_t> kernel_gs_;  // since the last stop
    bool asked_for_gs_ = false;               // posted
    std::uint64_t valid_before_ = 0;          // the VMM's own kvm_valid_regs
    bool asked_ = false;
    kvm_guest_debug debug_{};  // as it was set last
    bool debug_known_ = true;
    kvm_guest_debug step_debug_{};  // while the VMM completes what a step needs of it
};

}  // namespace exo::kvm
