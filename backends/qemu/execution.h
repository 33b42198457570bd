// Run control and breakpoints of a QEMU guest, by QEMU's own gdb stub, which is started for it.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "backends/api/target.h"
#include "backends/qemu/journal.h"
#include "backends/qemu/memory.h"
#include "backends/qemu/monitor.h"
#include "backends/qemu/stub_client.h"
#include "backends/qemu/stub_control.h"

namespace exo::qemu {

class QemuExecution final : public Execution, public Breakpoints, private PhysicalWriter {
public:
    // `identity` is what the journal has of the target: target, connect, uuid. All references outlive this.
    QemuExecution(Monitor& monitor, const Process& process, GuestMemory& memory, JournalEntry identity,
                  bool kvm);
    ~QemuExecution() override;

    Result<StopEvent> attach() override;
    Result<void> detach() override;
    Result<void> resume(std::span<const VcpuAction> actions) override;
    Result<std::optional<StopEvent>> wait_for_stop(std::chrono::milliseconds limit) override;
    // An interrupt that comes while the guest is stopped is forgotten at the next resume().
    void interrupt() noexcept override;
    // TCG's helpers for them leave the processor's loop before the single-step trap (do_hlt(), do_pause(),
    // target/i386/tcg).
    [[nodiscard]] bool steps_past_pauses() const override { return !kvm_; }

    [[nodiscard]] bool supports(BreakpointKind kind) const override;
    Result<void> insert(BreakpointKind kind, VirtualAddress address, std::uint32_t length) override;
    Result<void> remove(BreakpointKind kind, VirtualAddress address, std::uint32_t length) override;
    [[nodiscard]] bool changes_memory() const override { return kvm_; }
    // TCG looks at no breakpoint in a step (QEMU 6.2 and later, accel/tcg/cpu-exec.c,
    // check_for_breakpoints()).
    [[nodiscard]] bool steps_in_place(BreakpointKind /*kind*/) const override { return !kvm_; }

    // The stub while the guest is attached and stopped, else null.
    [[nodiscard]] StubClient* stopped_client() { return running_ ? nullptr : client_.get(); }
    [[nodiscard]] bool attached() const { return client_ != nullptr; }
    [[nodiscard]] bool running() const { return running_; }
    // Changes whenever registers may have: each resume and each stop.
    [[nodiscard]] std::uint64_t generation() const { return generation_; }
    // By other ways than these.
    void registers_changed() { ++generation_; }

private:
    using Key = std::tuple<BreakpointKind, std::uint64_t, std::uint32_t>;

    Result<void> write_physical(PhysicalAddress address, ConstBytes in) override;

    // execution.cpp
    Result<void> open_stub();
    Result<void> give_back();
    Result<void> stop_now();
    Result<void> send_resume();
    Result<std::optional<StopEvent>> take_stop();
    Result<std::optional<StopEvent>> translate(const rsp::StopReply& stop);
    Result<bool> is_stale_step(VcpuId vcpu, rsp::Signal signal);
    Result<std::optional<StopEvent>> look_at_run_state();
    StopEvent stopped(StopEvent event);
    void wait_for_event(Clock::time_point deadline);

    // breakpoints.cpp
    Result<void> remove_all();
    Result<void> request(char operation, const Key& key);
    Result<void> on_any_vcpu(char operation, const Key& key);
    Result<JournalPatch> locate(std::uint64_t address);
    Result<void> journal_patches();
    Result<void> insert_software_on_kvm(const Key& key);
    Result<void> remove_software_on_kvm(const Key& key);

    Monitor& monitor_;
    const Process& process_;
    GuestMemory& memory_;
    JournalEntry journal_;
    bool kvm_;
    FileDescriptor wake_;  // eventfd of interrupt()
    std::unique_ptr<StubClient> client_;
    bool running_ = false;
    std::uint64_t generation_ = 0;
    std::uint64_t resumes_ = 0;
    std::vector<VcpuAction> actions_;  // of the last resume
    std::vector<bool> stepping_left_;  // vCPUs whose single-step flag QEMU has not cleared
    std::set<Key> inserted_;
    std::map<std::uint64_t, JournalPatch> patches_;   // by virtual address; KVM only
    std::optional<Clock::time_point> look_at_;        // when to ask QEMU whether it runs at all
    std::optional<Clock::time_point> shutting_down_;  // the guest has powered off: QEMU is to end by then
};

}  // namespace exo::qemu
