// Run control of an HVM or PVH domain through its vm_event monitor: breakpoints, watchpoints, steps.
//
// An event holds its vCPU in the hypervisor until its response. That is how single vCPUs are held here: the
// hypervisor itself can pause no less than a domain. A vCPU that is to be held and has no event is given one,
// before it does anything: it is let run with the page that it is to execute not executable (park()).
//
// A software breakpoint is an int3, in a copy of its page that only an altp2m view shows (HiddenPages) where
// the domain's configuration allows that, else in the guest's own memory. A vCPU gets past it by one step in
// the view that has not the int3, or with all others held while it is taken out.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "backends/api/target.h"
#include "backends/host/file_descriptor.h"
#include "backends/xen/altp2m.h"
#include "backends/xen/debug_registers.h"
#include "backends/xen/event_domain.h"
#include "backends/xen/page_watches.h"

namespace exo::xen {

// Whether there can be breakpoints; steps are possible with less (EventExecution::resume says so).
inline bool has_breakpoints(const EventAbilities& abilities) {
    // Without the monitor trap flag the processor is AMD's, or none: permissions of pages are VMX' alone
    // (p2m_mem_access_sanity_check()), and where Xen runs under QEMU's emulated SVM events of int3 never
    // come, and the guest gets ours as its own.
    return abilities.int3 && abilities.debug_exceptions && abilities.monitor_trap;
}

class EventExecution final : public Execution, public Breakpoints {
public:
    // `domain` outlives this.
    EventExecution(EventDomain& domain, const EventAbilities& abilities);
    EventExecution(const EventExecution&) = delete;
    EventExecution& operator=(const EventExecution&) = delete;
    ~EventExecution() override;

    Result<StopEvent> attach() override;
    Result<void> detach() override;
    Result<void> resume(std::span<const VcpuAction> actions) override;
    Result<std::optional<StopEvent>> wait_for_stop(std::chrono::milliseconds limit) override;
    void interrupt() noexcept override;
    void judge_hits(const Judge& judge) override { judge_ = judge; }

    [[nodiscard]] bool supports(BreakpointKind kind) const override;
    Result<void> insert(BreakpointKind kind, VirtualAddress address, std::uint32_t length) override;
    Result<void> remove(BreakpointKind kind, VirtualAddress address, std::uint32_t length) override;
    // resume() gets a vCPU past its breakpoint by itself.
    [[nodiscard]] bool steps_in_place(BreakpointKind kind) const override {
        return kind == BreakpointKind::software || kind == BreakpointKind::hardware;
    }

    // What the hypervisor executes for the guest ends no step.
    [[nodiscard]] bool steps_past_pauses() const override { return true; }

    [[nodiscard]] bool attached() const { return attached_; }
    [[nodiscard]] bool running() const { return running_; }
    // Whether its registers can be asked for and changed: with all others, or while its hit is judged.
    [[nodiscard]] bool stands(VcpuId id) const { return attached_ && (!running_ || judged_ == id); }
    // Changes whenever registers may have.
    [[nodiscard]] std::uint64_t generation() const { return generation_; }

private:
    using Clock = std::chrono::steady_clock;

    struct Vcpu {
        std::optional<VmEvent> event;  // that waits for its response
        bool seen = false;             // it was told, or there is nothing to tell
        bool parked = false;           // it is there to hold it while another goes on
        bool stepping = false;         // single-stepping is on
        // Steps by the trap flag: where it began, and that a flag of ours is where an interrupt saved it.
        std::uint64_t step_rip = 0, step_rsp = 0;
        bool owes_trap = false;
        std::optional<StopEvent> debug;  // what its #DB was for, as that was when it came
    };
    struct Software {
        PhysicalAddress place{};
        std::byte original{};
        bool hidden = false;
    };
    // A watchpoint that an access may be one of, and what was there before.
    struct Suspect {
        PageWatches::Candidate candidate;
        std::vector<std::byte> before;
    };
    // How a vCPU is let past what keeps it from its next instruction.
    struct Lift {
        bool alone = false;       // others must not run meanwhile
        ViewId view = host_view;  // in which it does it
        std::function<Result<void>()> lift, put_back;
    };

    // event_execution.cpp
    Result<void> take();
    Result<void> give_back();
    Result<void> stop_all();
    Result<void> drain();
    Result<void> note(const VmEvent& event);
    Result<void> pause();
    Result<void> unpause();
    Result<void> answer(VcpuId id, std::optional<ViewId> view = {});
    Result<void> set_step(VcpuId id, bool on);
    Result<void> deliver(EventKind kind, bool wanted);
    Result<void> save() { return domain_.write_journal(journal_); }
    [[nodiscard]] bool all_stand() const;
    [[nodiscard]] bool hidden() const { return abilities_.views; }

    // event_trap_flag.cpp
    Result<void> set_trap_flag(VcpuId id, bool on);
    Result<void> check_trap_flag(VcpuId id);
    Result<void> hide_trap_flag(VcpuId id, const VmEvent& event);
    Result<void> journal_trap_flags();
    Result<void> collect_traps();
    [[nodiscard]] bool owes_traps() const;

    // event_running.cpp
    Result<void> start();
    Result<void> start_one(VcpuId id);
    Result<void> look_at_unseen();
    [[nodiscard]] bool has_unseen() const;
    Result<void> step_off(const std::vector<VcpuId>& hits);
    [[nodiscard]] Result<std::vector<VcpuId>> told_hits();
    Result<std::optional<StopEvent>> wait(Clock::time_point deadline);
    Result<std::optional<StopEvent>> stopped(StopEvent event);
    Result<std::optional<StopEvent>> look_at(VcpuId id);
    Result<std::optional<StopEvent>> at_int3(VcpuId id);
    Result<std::optional<StopEvent>> at_debug_exception(VcpuId id);
    Result<std::optional<StopEvent>> at_access(VcpuId id);
    Result<std::optional<StopEvent>> after_step(VcpuId id);
    Result<bool> goes_on(const StopEvent& event);
    Result<void> reinject(VcpuId id, std::uint8_t vector);
    bool take_interrupt();

    // event_holding.cpp
    Result<void> park_all();
    Result<void> restart_parked();
    Result<void> pass(VcpuId id, const Lift& how);
    Result<void> get_past(VcpuId id, const Software& breakpoint);
    Result<bool> wait_for_event(VcpuId id, Clock::time_point deadline);
    Result<void> step_with_access(VcpuId id, std::vector<Suspect>& suspects);
    Result<void> suspect(VcpuId id, std::vector<Suspect>& suspects);

    // event_breakpoints.cpp
    Result<PhysicalAddress> locate(VcpuId id, VirtualAddress address, std::uint64_t clear_in_cr3 = 0);
    Result<PhysicalAddress> locate(VirtualAddress address);
    Result<void> insert_software(VirtualAddress address);
    Result<void> remove_software(VirtualAddress address);
    Result<void> insert_watch(BreakpointKind kind, VirtualAddress address, std::uint32_t length);
    Result<void> journal_watches();
    Result<void> remove_all();
    Result<void> apply_debug_registers();
    Result<void> apply_access(std::uint64_t frame);
    [[nodiscard]] PageAccess access(std::uint64_t frame) const;
    [[nodiscard]] const Software* software_at(PhysicalAddress place) const;
    Result<void> write_byte(PhysicalAddress place, std::byte value);

    EventDomain& domain_;
    EventAbilities abilities_;
    MonitorJournal journal_;
    HiddenPages pages_;
    FileDescriptor wake_;  // eventfd of interrupt()
    std::vector<Vcpu> vcpus_;
    bool taken_ = false;  // the ring is ours
    bool attached_ = false;
    bool running_ = false;
    bool paused_ = false;  // the domain, by us
    std::uint64_t generation_ = 0;
    std::map<EventKind, bool> delivered_;
    std::vector<VcpuAction> actions_;
    std::deque<StopEvent> events_;  // that wait for a resume to be told
    Judge judge_;
    std::optional<VcpuId> judged_;
    std::map<std::uint64_t, Software> software_;  // by virtual address
    DebugRegisters debug_;
    DebugRegisterValues applied_;
    PageWatches watches_;
};

}  // namespace exo::xen
