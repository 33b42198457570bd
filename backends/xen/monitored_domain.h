// A domain's vm_event monitor and its altp2m, by libxenctrl.
#pragma once

#include <memory>
#include <string>

#include "backends/xen/domain.h"
#include "backends/xen/event_domain.h"
#include "backends/xen/frames.h"
#include "backends/xen/journal.h"
#include "backends/xen/memory.h"
#include "backends/xen/vcpus.h"
#include "backends/xen/vm_event_ring.h"

namespace exo::xen {

// Nothing where the hypervisor, the processor or the domain's kind has no monitor.
Result<EventAbilities> abilities_of(const Domain& domain);

class MonitoredDomain final : public EventDomain {
public:
    // What outlives it.
    struct Parts {
        const Domain& domain;
        ForeignMemory& memory;
        FrameMapper& frames;
        Vcpus& vcpus;
        std::uint32_t vcpu_count = 0;
    };
    // Without a journal nothing is written: of one who undoes what another's says.
    MonitoredDomain(const Parts& parts, std::optional<JournalEntry> journal);
    ~MonitoredDomain() override;

    [[nodiscard]] std::string name() const override { return parts_.domain.text(); }
    [[nodiscard]] std::uint32_t vcpu_count() const override { return parts_.vcpu_count; }
    [[nodiscard]] PhysicalMemory& memory() override { return parts_.memory; }
    Result<DomainLife> life() override;
    // One line, where more than ours has stopped it; else empty.
    [[nodiscard]] const std::string& why_it_stands() const { return why_; }

    Result<void> begin() override;
    void end() override;
    Result<void> pause() override;
    Result<void> unpause() override;
    Result<void> stands() override;
    void runs() override;

    Result<void> open_events() override;
    Result<void> close_events() override;
    Result<void> deliver(EventKind kind, bool wanted) override;
    Result<std::optional<VmEvent>> next_event() override;
    Result<void> answer(const VmEvent& response) override;
    Result<bool> wait(int wake, std::chrono::milliseconds limit) override;
    Result<void> release_vcpus() override;

    Result<void> set_single_step(VcpuId vcpu, bool on) override;
    Result<void> inject(VcpuId vcpu, std::uint8_t vector, std::uint8_t type,
                        std::uint32_t instruction_length) override;
    Result<HvmCpu> cpu(VcpuId vcpu) override;
    Result<void> change_cpu(VcpuId vcpu, const std::function<void(HvmCpu&)>& change) override;
    Result<bool> idle(VcpuId vcpu) override { return parts_.vcpus.halted(vcpu); }

    // monitored_views.cpp
    Result<void> set_access(ViewId view, std::uint64_t frame, PageAccess access) override;
    Result<bool> enable_views(bool on) override;
    Result<ViewId> create_view() override;
    Result<void> destroy_view(ViewId view) override;
    Result<void> switch_to_view(ViewId view) override;
    Result<void> remap(ViewId view, std::uint64_t frame, std::optional<std::uint64_t> other) override;
    Result<std::uint64_t> maximum_memory() override;
    Result<void> set_maximum_memory(std::uint64_t kib) override;
    Result<std::uint64_t> free_frame() override;
    Result<void> add_page(std::uint64_t frame) override;
    Result<void> write_page(std::uint64_t frame, ConstBytes content) override;
    Result<void> remove_page(std::uint64_t frame) override;

    Result<void> write_journal(const MonitorJournal& journal) override;

private:
    [[nodiscard]] xc_interface* control() const { return parts_.domain.xen().control(); }
    [[nodiscard]] DomainId id() const { return parts_.domain.id(); }
    // Of a call of libxenctrl: 0 is success.
    [[nodiscard]] Result<void> check(int rc, std::string_view what) const;
    [[nodiscard]] bool has_views() const;
    [[nodiscard]] Result<bool> is_there(std::uint64_t frame);
    Result<void> save();
    void explain(const xc_dominfo_t& info);
    Result<void> notify();

    Parts parts_;
    std::optional<JournalEntry> journal_;
    StandsByOthers by_others_;
    std::string why_;
    void* page_ = nullptr;  // the ring's
    std::optional<VmEventRing> ring_;
    xenevtchn_handle* channel_ = nullptr;
    int port_ = -1;
};

}  // namespace exo::xen
