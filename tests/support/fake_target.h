// A machine made of nothing: RAM, registers and a script of stops. What it is asked is written down, and each
// call can be made to fail.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "backends/api/target.h"
#include "backends/arch/x86_64.h"

namespace exo::test {

// RAM from address 0 on. What is above it is a hole.
class FakeRam final : public PhysicalMemory {
public:
    explicit FakeRam(std::size_t size)
        : bytes_(size), regions_{{PhysicalAddress{0}, size, MemoryRegion::Kind::ram, "ram"}} {}

    Result<std::size_t> read_some(PhysicalAddress address, MutableBytes out) override;
    Result<std::size_t> write_some(PhysicalAddress address, ConstBytes in) override;
    [[nodiscard]] std::span<const MemoryRegion> regions() const override { return regions_; }

    // The test's own access: `address` + `size` must lie in it.
    [[nodiscard]] MutableBytes at(std::uint64_t address, std::size_t size) {
        return MutableBytes{bytes_}.subspan(address, size);
    }
    [[nodiscard]] std::size_t size() const { return bytes_.size(); }

private:
    std::vector<std::byte> bytes_;
    std::vector<MemoryRegion> regions_;
};

struct FakeMachineShape {
    std::uint32_t vcpus = 2;
    std::size_t ram = 1U << 20U;
    bool execution = true;    // false: a dump
    bool breakpoints = true;  // false: none of any kind
    bool console = false;
    bool bound_to_thread = true;
    std::set<BreakpointKind> kinds{BreakpointKind::software, BreakpointKind::hardware,
                                   BreakpointKind::write_watch, BreakpointKind::read_watch,
                                   BreakpointKind::access_watch};
    std::size_t debug_registers = 4;
    bool steps_in_place = false;
    bool aligned_watch = false;  // as a debug register: 1, 2, 4 or 8 bytes, aligned; else of any length
    // Software breakpoints are bytes in guest memory, as under KVM; else they are kept out of it, as by TCG.
    // They go where the kernel's text is: an address minus 0xffffffff81000000, or the address itself.
    bool int3_in_memory = false;
    bool steps_past_pauses = false;  // as TCG
    bool judges = false;             // its vCPUs stop one by one, as under KVM
};

class FakeTarget final : public Target,
                         public Execution,
                         public Breakpoints,
                         public Console,
                         public Controls {
public:
    explicit FakeTarget(FakeMachineShape shape = {});

    // What wait_for_stop() will give, in order, one event for each resume; `before` is what the guest did
    // until then.
    void script(StopEvent event, std::function<void()> before = {});
    [[nodiscard]] std::size_t scripted() const { return script_.size(); }

    // The next `times` calls of `call` fail: attach detach resume wait insert remove read_registers
    // complete_registers write_registers console reset nmi.
    void fail(const std::string& call, Error error, int times = 1);
    // A software breakpoint there is bad_address, until `mapped`.
    void unmap_for_breakpoints(VirtualAddress address, bool unmapped = true);

    // complete_registers() only gives it.
    void make_slow(RegisterNumber number) { slow_.insert(number); }

    void set(VcpuId vcpu, RegisterNumber number, std::uint64_t value) {
        registers_.at(vcpu).set(number, value);
    }
    [[nodiscard]] RegisterSet& registers(VcpuId vcpu) { return registers_.at(vcpu); }
    [[nodiscard]] VcpuState& state(VcpuId vcpu) { return states_[vcpu]; }
    void set_msr(std::uint32_t number, std::uint64_t value) { msrs_[number] = value; }
    // What the next reset() does.
    void in_next_reset(std::function<void()> what) { in_reset_ = std::move(what); }
    [[nodiscard]] FakeRam& ram() { return ram_; }
    // Called at the start of the next attach().
    void in_next_attach(std::function<void()> what) { in_attach_ = std::move(what); }
    // Called at the start of the next wait_for_stop().
    void in_next_wait(std::function<void()> what) { in_wait_ = std::move(what); }
    // The guest stopped for a reason of its own when the interrupt came, and gives that one event only.
    void absorb_interrupt() { interrupted_ = false; }

    // Calls that changed something, one line each: "resume run hold", "insert software 0x1000 1".
    [[nodiscard]] std::vector<std::string> take_log() { return std::exchange(log_, {}); }
    [[nodiscard]] bool is_running() const { return running_; }
    [[nodiscard]] const std::set<std::tuple<BreakpointKind, VirtualAddress, std::uint32_t>>& inserted()
        const {
        return inserted_;
    }

    // Target
    [[nodiscard]] bool bound_to_thread() const override { return shape_.bound_to_thread; }
    [[nodiscard]] std::string description() const override { return "fake machine"; }
    [[nodiscard]] const RegisterLayout& layout() const override { return x86::layout(); }
    [[nodiscard]] std::uint32_t vcpu_count() const override { return shape_.vcpus; }
    [[nodiscard]] PhysicalMemory& memory() override { return ram_; }
    Result<bool> running() override { return running_.load(); }
    Result<RegisterSet> read_registers(VcpuId vcpu) override;
    Result<void> complete_registers(VcpuId vcpu, RegisterSet& registers) override;
    Result<void> write_registers(VcpuId vcpu, const RegisterSet& values,
                                 std::span<const RegisterNumber> numbers) override;
    [[nodiscard]] Execution* execution() override { return shape_.execution ? this : nullptr; }
    [[nodiscard]] Breakpoints* breakpoints() override { return shape_.breakpoints ? this : nullptr; }
    [[nodiscard]] Console* console() override { return shape_.console ? this : nullptr; }
    [[nodiscard]] Controls* controls() override { return shape_.execution ? this : nullptr; }
    Result<VcpuState> vcpu_state(VcpuId vcpu) override { return states_[vcpu]; }
    Result<std::uint64_t> read_msr(VcpuId vcpu, std::uint32_t number) override;

    // Controls
    Result<void> reset() override;
    Result<void> nmi() override { return called("nmi"); }

    // Execution
    Result<StopEvent> attach() override;
    Result<void> detach() override;
    Result<void> resume(std::span<const VcpuAction> actions) override;
    Result<std::optional<StopEvent>> wait_for_stop(std::chrono::milliseconds limit) override;
    void interrupt() noexcept override;
    void judge_hits(const Judge& judge) override { judge_ = judge; }
    [[nodiscard]] bool has_judge() const { return static_cast<bool>(judge_); }
    [[nodiscard]] bool steps_past_pauses() const override { return shape_.steps_past_pauses; }

    // Breakpoints
    [[nodiscard]] bool supports(BreakpointKind kind) const override { return shape_.kinds.contains(kind); }
    [[nodiscard]] bool changes_memory() const override { return shape_.int3_in_memory; }
    [[nodiscard]] bool steps_in_place(BreakpointKind /*kind*/) const override {
        return shape_.steps_in_place;
    }
    Result<void> insert(BreakpointKind kind, VirtualAddress address, std::uint32_t length) override;
    Result<void> remove(BreakpointKind kind, VirtualAddress address, std::uint32_t length) override;

    // Console
    Result<std::string> command(const std::string& line) override;

private:
    struct Scripted {
        StopEvent event;
        std::function<void()> before;
    };
    struct Failure {
        Error error;
        int times = 0;
    };
    using Key = std::tuple<BreakpointKind, VirtualAddress, std::uint32_t>;

    // Writes the call down, and gives the failure that is due for it.
    Result<void> called(const std::string& call, const std::string& arguments = {});
    Result<void> check(const std::string& call);
    Result<void> refuse(const Key& key) const;
    void poke(VirtualAddress address, bool insert);

    FakeMachineShape shape_;
    FakeRam ram_;
    std::vector<RegisterSet> registers_;
    std::map<VcpuId, VcpuState> states_;
    std::map<std::uint32_t, std::uint64_t> msrs_;
    std::function<void()> in_reset_;
    std::vector<VcpuAction> actions_;
    Judge judge_;
    std::set<RegisterNumber> slow_;
    std::deque<Scripted> script_;
    std::map<std::string, Failure> failures_;
    std::set<VirtualAddress> unmapped_;
    std::set<Key> inserted_;
    std::map<std::uint64_t, std::byte> saved_bytes_;
    std::function<void()> in_attach_;
    std::function<void()> in_wait_;
    std::vector<std::string> log_;
    std::atomic<bool> running_{true};
    std::atomic<bool> interrupted_{false};
};

}  // namespace exo::test
