// Run control of a KVM guest from outside its VMM: which threads are traced, and what each vCPU does.
//
// A guest that runs with nothing to watch for is not traced at all. With breakpoints, or while a vCPU steps
// or is held, its vCPU threads are stopped at each end of KVM_RUN, so that KVM_EXIT_DEBUG is seen before the
// VMM would take it for the guest's own.
//
// Can be called from any thread, one at a time: what needs ptrace is done by a thread of its own. A guest
// that stands has its vCPUs' threads parked (Vcpu) once they are asked for something, so that registers and
// steps need none.
#pragma once

#include <linux/kvm.h>
#include <poll.h>

#include <array>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backends/api/target.h"
#include "backends/host/file_descriptor.h"
#include "backends/kvm/journal.h"
#include "backends/kvm/memory.h"
#include "backends/kvm/vcpu.h"

namespace exo::kvm {

inline constexpr std::byte breakpoint_byte{0xcc};  // int3

// How long a vCPU may take to come to its next KVM_RUN. One that does not is paused by its VMM, or the VMM is
// busy with something that it should not do there.
inline constexpr std::chrono::milliseconds settle_limit{500};

class KvmExecution final : public Execution, public Breakpoints {
public:
    // All references outlive this.
    KvmExecution(const Vm& vm, const Process& process, SlotMemory& memory, std::string target);
    ~KvmExecution() override;

    Result<StopEvent> attach() override;
    Result<void> detach() override;
    Result<void> resume(std::span<const VcpuAction> actions) override;
    Result<std::optional<StopEvent>> wait_for_stop(std::chrono::milliseconds limit) override;
    void interrupt() noexcept override;
    void listen_to(const Line& line) override { line_ = line; }
    void judge_hits(const Judge& judge) override { judge_ = judge; }

    // Hardware breakpoints and watchpoints by the debug registers, of which there are four.
    [[nodiscard]] bool supports(BreakpointKind kind) const override;
    Result<void> insert(BreakpointKind kind, VirtualAddress address, std::uint32_t length) override;
    Result<void> remove(BreakpointKind kind, VirtualAddress address, std::uint32_t length) override;

    [[nodiscard]] bool attached() const { return attached_; }
    [[nodiscard]] bool running() const { return running_; }
    // Whether its registers can be asked for and changed: with all others, or while its hit is judged.
    [[nodiscard]] bool stands(VcpuId id) const {
        return attached_ && !free_ && (!running_ || vcpus_.at(id)->stopped());
    }
    // Changes whenever registers may have.
    [[nodiscard]] std::uint64_t generation() const { return generation_; }
    [[nodiscard]] std::uint32_t vcpu_count() const { return static_cast<std::uint32_t>(vcpus_.size()); }
    // Of a stopped guest.
    [[nodiscard]] Vcpu& vcpu(VcpuId id) { return *vcpus_.at(id); }
    // By the thread that traces.
    void trace(const std::function<void()>& work) { tracer_.run(work); }
    // Stops the guest for as long as `work` takes, if it is not stopped. For looks at one that runs.
    Result<void> while_stopped(const std::function<Result<void>()>& work);
    // Whether the VMM has paused it: it does not run whatever we do. As it was seen at the last stop.
    [[nodiscard]] bool held_by_vmm() const;
    // Called whenever it has come to stand for a client: by attach(), with true, and by a stop.
    void when_it_stands(std::function<void(bool attached)> look) { look_ = std::move(look); }
    // KVM_CHECK_EXTENSION of the VM; 0 if it does not have it. Stopped.
    Result<std::int64_t> extension(std::uint64_t capability);
    // KVM_TRANSLATE of a vCPU. Stopped.
    Result<std::optional<PhysicalAddress>> translate(VcpuId id, VirtualAddress address);

private:
    struct Patch {
        PhysicalAddress place{};
        std::byte original{};
    };
    // Where the page of code lies that a step began in; consecutive steps are mostly of one page.
    struct CodePage {
        std::uint64_t root = 0;  // CR3
        std::uint64_t page = 1;  // virtual, none at first
        PhysicalAddress place{};
    };
    struct HardwareSlot {
        BreakpointKind kind{};
        std::uint64_t address = 0;
        std::uint32_t length = 0;
    };

    // execution.cpp
    Result<StopEvent> attach_traced();
    Result<void> detach_traced();
    Result<void> stop_for(const std::function<Result<void>()>& work);
    Result<void> take();
    Result<void> give_back();
    Result<void> stop_all();
    Result<void> settle();
    Result<bool> is_settled(Vcpu& vcpu);
    Result<void> build_board();
    void map_run_area(Vcpu& vcpu) const;
    Result<void> release_all();

    // running.cpp
    Result<void> start();
    Result<void> stop_and_make_ready(bool for_steps);
    Result<void> run_one(VcpuId id, VcpuAction action);
    Result<void> begin_step(VcpuId id);
    Result<void> step_off_breakpoints();
    Result<std::optional<StopEvent>> step_alone(VcpuId id);
    Result<std::optional<StopEvent>> look_at(VcpuId id);
    Result<bool> goes_on(const StopEvent& event);
    [[nodiscard]] bool is_hot(VcpuId id) const;
    std::vector<const Vcpu*> watch_all_but_hot();
    Result<void> hide_trap_flag(VcpuId id, const kvm_regs& before);
    Result<std::optional<StopEvent>> translate_exit(VcpuId id, const kvm_debug_exit_arch& debug);
    Result<std::optional<StopEvent>> wait(std::chrono::milliseconds limit);
    Result<std::optional<StopEvent>> wait_for_steps(Clock::time_point deadline);
    Result<std::optional<StopEvent>> wait_traced(Clock::time_point deadline);
    Result<std::optional<StopEvent>> wait_free(Clock::time_point deadline);
    Result<std::optional<StopEvent>> stopped(StopEvent event);
    bool take_interrupt();
    bool take_interrupt(pollfd& line);

    // breakpoints.cpp
    [[nodiscard]] bool uses_debug_registers() const;
    // `end_of_step`: one more address at which it is to stop, if a debug register is free.
    [[nodiscard]] kvm_guest_debug debug_state(bool step, std::optional<std::uint64_t> end_of_step = {}) const;
    Result<kvm_guest_debug> debug_state_of_step(VcpuId id);
    bool is_system_call(VcpuId id, const kvm_run& area);
    Result<PhysicalAddress> locate(VirtualAddress address);
    Result<PhysicalAddress> locate(VcpuId id, VirtualAddress address, std::uint64_t clear_in_cr3 = 0);
    Result<void> insert_software(VirtualAddress address);
    Result<void> insert_hardware(const HardwareSlot& slot);
    Result<void> write_byte(PhysicalAddress place, std::byte value);
    std::optional<StopEvent> hardware_event(VcpuId id, const kvm_debug_exit_arch& debug) const;
    Result<void> remove_all();

    const Vm& vm_;
    const Process& process_;
    SlotMemory& memory_;
    RemoteMemory vmm_;
    Tracer tracer_;
    std::vector<std::unique_ptr<Vcpu>> vcpus_;
    std::map<std::uint32_t, pid_t> threads_;  // that were seen to run a vCPU, by index
    Springboard board_;
    MappedPages board_data_;
    JournalEntry journal_;
    FileDescriptor wake_;  // eventfd of interrupt()
    Line line_;            // of the client
    bool taken_ = false;   // threads and springboard are ours
    bool attached_ = false;
    bool running_ = false;
    bool free_ = false;  // running untraced
    std::uint64_t generation_ = 0;
    std::optional<std::uint64_t> debug_flags_;  // KVM_CAP_SET_GUEST_DEBUG2
    std::vector<VcpuAction> actions_;
    std::map<VcpuId, kvm_regs> before_step_;
    CodePage code_page_;
    std::deque<StopEvent> events_;  // that wait for a resume to be told
    Judge judge_;
    std::function<void(bool attached)> look_;
    std::map<VcpuId, Clock::time_point> hot_;  // of vCPUs whose hits go on: until when runs are posted
    std::map<std::uint64_t, Patch> software_;  // by virtual address
    std::array<std::optional<HardwareSlot>, 4> hardware_;
};

}  // namespace exo::kvm
