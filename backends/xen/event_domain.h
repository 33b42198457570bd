// What run control through vm_event asks of the hypervisor, for one domain: a seam, so that it can be tested
// without one. MonitoredDomain is the real thing.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>

#include "backends/api/memory.h"
#include "backends/api/result.h"
#include "backends/api/target.h"
#include "backends/xen/frames.h"
#include "backends/xen/monitor_journal.h"
#include "backends/xen/vm_event.h"

namespace exo::xen {

// What the processor and the domain's configuration allow.
struct EventAbilities {
    bool int3 = false;              // events of int3
    bool debug_exceptions = false;  // events of #DB
    bool monitor_trap = false;      // steps by VMX' monitor trap flag; with it, permissions of pages
    bool views = false;             // altp2m, which the domain's configuration has to allow
};

enum class EventKind : std::uint8_t { int3, debug_exception, step };

// What a guest may still do with a page without an event.
enum class PageAccess : std::uint8_t { all, read_execute, execute, read_write };

using ViewId = std::uint16_t;           // of altp2m
inline constexpr ViewId host_view = 0;  // the domain's memory as it is

constexpr std::uint64_t frame_of(PhysicalAddress address) { return raw(address) / page_bytes; }

// held: it stands by others than us, or has crashed and is kept.
enum class DomainLife : std::uint8_t { runs, held, gone };

class EventDomain {
public:
    EventDomain() = default;
    EventDomain(const EventDomain&) = delete;
    EventDomain& operator=(const EventDomain&) = delete;
    virtual ~EventDomain() = default;

    // "domain 3 (debian)"
    [[nodiscard]] virtual std::string name() const = 0;
    [[nodiscard]] virtual std::uint32_t vcpu_count() const = 0;
    [[nodiscard]] virtual PhysicalMemory& memory() = 0;
    virtual Result<DomainLife> life() = 0;

    // Before all else, and after: what a dead owner has left is undone; busy if there is one that lives.
    virtual Result<void> begin() = 0;
    virtual void end() = 0;
    // Pauses nest. None of its vCPUs is in the guest afterwards.
    virtual Result<void> pause() = 0;
    virtual Result<void> unpause() = 0;
    // Told, for what is kept of it: nothing changes in the guest from now on, or it may.
    virtual Result<void> stands() = 0;
    virtual void runs() = 0;

    // busy if another tool has the domain's ring.
    virtual Result<void> open_events() = 0;
    virtual Result<void> close_events() = 0;
    // Which events there are from now on. All vCPUs are taken out of the guest for it.
    virtual Result<void> deliver(EventKind kind, bool wanted) = 0;
    virtual Result<std::optional<VmEvent>> next_event() = 0;
    virtual Result<void> answer(const VmEvent& response) = 0;
    // Until there may be an event, `wake` (a file descriptor, -1 for none) is readable, or `limit` is over:
    // false.
    virtual Result<bool> wait(int wake, std::chrono::milliseconds limit) = 0;
    // Of an owner that has died: vCPUs wait for responses that nobody will give. Events are open, and nothing
    // was asked yet.
    virtual Result<void> release_vcpus() = 0;

    // By the monitor trap flag; while it is on, the vCPU takes no interrupt (vmx_intr_assist(),
    // xen/arch/x86/hvm/vmx/intr.c).
    virtual Result<void> set_single_step(VcpuId vcpu, bool on) = 0;
    // An exception that the vCPU gets before its next instruction. `type` as in HVMOP_inject_trap.
    virtual Result<void> inject(VcpuId vcpu, std::uint8_t vector, std::uint8_t type,
                                std::uint32_t instruction_length) = 0;
    virtual Result<HvmCpu> cpu(VcpuId vcpu) = 0;
    // Of a vCPU that stands: reads, has `change` change it, writes. Of one whose event waits for its
    // response, before that is given.
    virtual Result<void> change_cpu(VcpuId vcpu, const std::function<void(HvmCpu&)>& change) = 0;
    // Whether it will not come to an event by itself: not started, or in HLT.
    virtual Result<bool> idle(VcpuId vcpu) = 0;

    // host_view where there are no others.
    virtual Result<void> set_access(ViewId view, std::uint64_t frame, PageAccess access) = 0;
    // altp2m of the domain, as a whole; what it was before.
    virtual Result<bool> enable_views(bool on) = 0;
    virtual Result<ViewId> create_view() = 0;
    virtual Result<void> destroy_view(ViewId view) = 0;
    // All vCPUs.
    virtual Result<void> switch_to_view(ViewId view) = 0;
    // In `view`, `frame` is the memory of `other`; of itself again if that is nothing.
    virtual Result<void> remap(ViewId view, std::uint64_t frame, std::optional<std::uint64_t> other) = 0;
    // The domain's limit of memory, in KiB.
    virtual Result<std::uint64_t> maximum_memory() = 0;
    virtual Result<void> set_maximum_memory(std::uint64_t kib) = 0;
    // A frame number above all that the guest has, for add_page().
    virtual Result<std::uint64_t> free_frame() = 0;
    virtual Result<void> add_page(std::uint64_t frame) = 0;
    // The whole of one that was added, which is no part of memory().
    virtual Result<void> write_page(std::uint64_t frame, ConstBytes content) = 0;
    virtual Result<void> remove_page(std::uint64_t frame) = 0;

    virtual Result<void> write_journal(const MonitorJournal& journal) = 0;
};

}  // namespace exo::xen
