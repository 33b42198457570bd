// The seam between the debugger side and a machine. A backend implements Target; what it can do beyond
// the required part it hands out as capabilities: pointers that are null where the machine cannot do it.
// A null capability makes the packets that need it unreachable: what a machine cannot do is told at connect,
// not when it is tried.
//
// Threads: one thread calls all of this, the one that opened the target (ptrace and libvirt want it so),
// but for Execution::interrupt(), which any thread may call.
//
// To add a backend: implement Target under backends/NAME/, add its row in backends/registry.cpp, run
// tests/support/target_contract.h against it. Nothing else changes.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backends/api/memory.h"
#include "backends/api/registers.h"
#include "backends/api/result.h"

namespace exo {

using VcpuId = std::uint32_t;  // 0 … vcpu_count()-1

enum class BreakpointKind : std::uint8_t {  // numbers of the Z packets
    software = 0,
    hardware = 1,
    write_watch = 2,
    read_watch = 3,
    access_watch = 4,
};

struct StopEvent {
    enum class Cause : std::uint8_t {
        none,       // stopped with no event of its own, as right after attach()
        interrupt,  // by interrupt(), or paused by the hypervisor's own tools
        step,
        breakpoint,  // rip is at the breakpoint's address, not one past it
        hardware_breakpoint,
        write_watch,  // `address` is the watched address; the store has taken effect
        read_watch,
        access_watch,
        exited,  // the guest is gone: powered off or destroyed
    };
    Cause cause = Cause::none;
    VcpuId vcpu = 0;
    VirtualAddress address{};
};

enum class VcpuAction : std::uint8_t { hold, run, step };

// Run control. Without it (a dump) the target is stopped for ever.
class Execution {
public:
    virtual ~Execution() = default;

    // Stops all vCPUs. Idempotent. busy if another debugger has the guest.
    virtual Result<StopEvent> attach() = 0;
    // Removes every breakpoint and gives the guest back as attach() found it: running if it ran, paused
    // if it was paused. Usable in any state, also while it runs. The target can be attached again.
    virtual Result<void> detach() = 0;
    // One action for each vCPU. A step takes no interrupt where the machine can prevent it.
    virtual Result<void> resume(std::span<const VcpuAction> actions) = 0;
    // Blocks until the guest stops, or for `limit`: nothing then. Exactly one event for each resume.
    virtual Result<std::optional<StopEvent>> wait_for_stop(std::chrono::milliseconds limit) = 0;
    // From any thread; the stop comes out of wait_for_stop. Harmless when the guest is stopped.
    virtual void interrupt() noexcept = 0;
    // Where wait_for_stop() may see an interrupt before interrupt() is called, which it is all the same: when
    // `descriptor` can be read, `is_interrupt` tells whether it is that. Of the calls of wait_for_stop() that
    // follow, until the next line; -1 is none.
    struct Line {
        int descriptor = -1;
        std::function<bool()> is_interrupt;
    };
    virtual void listen_to(const Line& line) { static_cast<void>(line); }
    // For machines whose vCPUs stop one by one; others do nothing with it. Until the next call, or null, it
    // is asked at the hit of an execution breakpoint by a vCPU that runs (not one that steps), out of
    // wait_for_stop(): that vCPU stands, the others run on, and nothing may be asked of them or changed but
    // that vCPU's registers. True: it goes on, from where Target::move_to() has put it. False: as without.
    using Judge = std::function<Result<bool>(const StopEvent&)>;
    virtual void judge_hits(const Judge& judge) { static_cast<void>(judge); }
    // Whether a step of HLT, PAUSE or MWAIT ends behind the next instruction, not behind itself.
    [[nodiscard]] virtual bool steps_past_pauses() const { return false; }
};

class Breakpoints {
public:
    virtual ~Breakpoints() = default;
    [[nodiscard]] virtual bool supports(BreakpointKind kind) const = 0;
    // Guest stopped. `length` is in bytes: of the instruction for software breakpoints (1 on x86), of
    // the range for watchpoints. Each (kind, address, length) is inserted at most once by the caller.
    // no_free_slot when the debug registers are used up, bad_address when the address is not mapped.
    virtual Result<void> insert(BreakpointKind kind, VirtualAddress address, std::uint32_t length) = 0;
    virtual Result<void> remove(BreakpointKind kind, VirtualAddress address, std::uint32_t length) = 0;
    // Whether a software breakpoint is a byte in guest memory, which whoever has that page runs into.
    [[nodiscard]] virtual bool changes_memory() const { return true; }
    // Whether a step of a vCPU that stands at an execution breakpoint of that kind may be tried with the
    // breakpoint in place. One that did not move was not possible, and did no harm.
    [[nodiscard]] virtual bool steps_in_place(BreakpointKind /*kind*/) const { return false; }
};

// The hypervisor's own command line: QEMU's HMP. `monitor` passes on what exogdb does not know itself.
class Console {
public:
    virtual ~Console() = default;
    virtual Result<std::string> command(const std::string& line) = 0;
};

// The buttons of the machine itself, for a user who asks for them. Guest stopped or running.
class Controls {
public:
    virtual ~Controls() = default;
    // As the reset button: every vCPU at its reset vector, RAM as it was. A guest that stands goes on
    // standing.
    virtual Result<void> reset() = 0;
    // As the NMI button: the processor that boots gets one, when it runs.
    virtual Result<void> nmi() = 0;
};

// What of a vCPU no register says; nothing where the backend cannot tell.
struct VcpuState {
    std::optional<std::uint8_t> code_bits;  // 16, 32 or 64: how it decodes instructions (CS.L, CS.D)
    std::optional<bool> halted;             // by HLT, or because nobody has started it yet
    std::optional<bool> smm;                // system management mode: firmware, unseen by the kernel
};

class Target {
public:
    Target() = default;
    Target(const Target&) = delete;
    Target& operator=(const Target&) = delete;
    virtual ~Target() = default;  // detaches

    // Runs it by the thread that sees stops first, where that is one of the target's own: what follows a stop
    // has no way from thread to thread then.
    virtual void where_stops_are_seen(const std::function<void()>& work) { work(); }

    // True: all calls come from the thread that opened it (ptrace(2) knows one tracer thread). False: from
    // any thread, one at a time.
    [[nodiscard]] virtual bool bound_to_thread() const { return true; }
    // "libvirt domain debian (QEMU 7.2.22, TCG), pid 4711"
    [[nodiscard]] virtual std::string description() const = 0;
    [[nodiscard]] virtual const RegisterLayout& layout() const = 0;
    [[nodiscard]] virtual std::uint32_t vcpu_count() const = 0;
    [[nodiscard]] virtual PhysicalMemory& memory() = 0;
    virtual Result<bool> running() = 0;

    // Stopped: all that the backend knows. Running: a snapshot of at least rip, rsp, cs, cr0, cr3, cr4,
    // efer, gs_base and k_gs_base, taken without stopping the guest for longer than the hypervisor's own
    // tools do; unsupported if there is none. Registers it cannot tell stay unavailable.
    virtual Result<RegisterSet> read_registers(VcpuId vcpu) = 0;
    // Fills in what read_registers() of the same stop left unavailable because it is slow to get. For those
    // who show or dump registers; not for each step.
    virtual Result<void> complete_registers(VcpuId vcpu, RegisterSet& registers) {
        static_cast<void>(vcpu);
        static_cast<void>(registers);
        return {};
    }
    // Stopped only. Writes the listed registers; unsupported for one that cannot be written.
    virtual Result<void> write_registers(VcpuId vcpu, const RegisterSet& values,
                                         std::span<const RegisterNumber> numbers) = 0;
    // The same for the program counter alone, of a vCPU that is about to be resumed: it may be written along
    // with the resume, which spares a round trip. A target that cannot leaves the vCPU where it was.
    virtual Result<void> move_to(VcpuId vcpu, std::uint64_t pc) {
        RegisterSet values{layout()};
        const RegisterNumber number = layout().pc;
        values.set(number, pc);
        return write_registers(vcpu, values, std::span{&number, 1});
    }

    // Why the guest stands, where that is more than that it was told to: it has powered off and is kept, it
    // has panicked and said so. One line; empty if there is nothing to tell.
    virtual std::string condition() { return {}; }

    // What a user should know of how the machine is seen: memory that was not found, or that may not be what
    // it seems. One line each. May change when the guest has run.
    [[nodiscard]] virtual std::vector<std::string> remarks() const { return {}; }

    // Stopped only.
    virtual Result<VcpuState> vcpu_state(VcpuId vcpu) {
        static_cast<void>(vcpu);
        return VcpuState{};
    }
    // A model-specific register that is in no RegisterSet. Stopped only. unsupported where the backend reads
    // none, not_found where this vCPU has none of that number.
    virtual Result<std::uint64_t> read_msr(VcpuId vcpu, std::uint32_t number) {
        static_cast<void>(vcpu);
        static_cast<void>(number);
        return fail(Errc::unsupported, "the hypervisor shows a debugger no other MSR");
    }

    [[nodiscard]] virtual Execution* execution() { return nullptr; }
    [[nodiscard]] virtual Breakpoints* breakpoints() { return nullptr; }
    [[nodiscard]] virtual Controls* controls() { return nullptr; }
    [[nodiscard]] virtual Console* console() { return nullptr; }
    // Where console() is none: how a user gets at the hypervisor's commands, as one line; empty if there is
    // no other way.
    [[nodiscard]] virtual std::string console_elsewhere() const { return {}; }
};

}  // namespace exo
