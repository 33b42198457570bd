#include "backends/xen/target.h"

#include <cerrno>
#include <charconv>
#include <optional>
#include <utility>

#include "backends/arch/x86_64.h"
#include "backends/xen/event_execution.h"
#include "backends/xen/execution.h"
#include "backends/xen/foreign_frames.h"
#include "backends/xen/layout.h"
#include "backends/xen/monitored_domain.h"
#include "backends/xen/p2m.h"
#include "backends/xen/recover.h"
#include "backends/xen/vcpus.h"

namespace exo::xen {
namespace {

// What a PV guest's memory needs beyond others.
struct PvFrames {
    PvFrames(const Hypervisor& xen, FrameMapper& guest, std::vector<std::uint64_t> extents,
             std::uint64_t shared_info)
        : xen_frames(xen, DOMID_XEN),
          machine(xen_frames, std::move(extents)),
          p2m(guest, machine, shared_info) {}

    ForeignFrames xen_frames;
    MachineToPhysical machine;
    P2m p2m;
};

// Xen's table of all frames of the machine: 8 bytes each, in pieces of 2 MiB.
Result<std::vector<std::uint64_t>> machine_table_extents(const Hypervisor& xen) {
    unsigned long last = 0;
    if (xc_maximum_ram_page(xen.control(), &last) != 0)
        return fail(xen.error("the size of the machine's memory", errno));
    constexpr std::uint64_t piece = 1U << 21;
    std::vector<std::uint64_t> extents((last * sizeof(xen_pfn_t) + piece - 1) / piece);
    if (xc_machphys_mfn_list(xen.control(), extents.size(), extents.data()) != 0)
        return fail(xen.error("Xen's table of the machine's frames", errno));
    return extents;
}

Result<std::unique_ptr<PvFrames>> pv_frames(const Domain& domain, const xc_dominfo_t& info,
                                            FrameMapper& guest) {
    unsigned width = 0;
    if (xc_domain_get_guest_width(domain.xen().control(), domain.id(), &width) != 0)
        return fail(domain.xen().error(domain.text(), errno));
    if (width != sizeof(std::uint64_t))
        return fail(Errc::unsupported, domain.text() + " is a 32-bit PV guest; exogdb knows 64-bit ones");
    return std::make_unique<PvFrames>(domain.xen(), guest, TRY(machine_table_extents(domain.xen())),
                                      info.shared_info_frame);
}

// Of memory that the guest may have: more than it has now where it gave some back, less where the toolstack
// has pages of its own among what Xen counts as the guest's (console, xenstore).
std::uint64_t frames_of(const Domain& domain, const xc_dominfo_t& info) {
    std::uint64_t kibibytes = 0;
    const auto most = domain.xen().store_value(domain.id(), "memory/static-max");
    if (most) std::from_chars(most->data(), most->data() + most->size(), kibibytes);
    return kibibytes > 0 ? kibibytes / 4 : info.nr_pages;
}

Result<std::vector<MemoryRegion>> regions_of(const Domain& domain, const xc_dominfo_t& info, PvFrames* pv) {
    if (pv != nullptr) return regions_of_pv(TRY(pv->p2m.size()));
    xen_pfn_t highest = 0;
    if (xc_domain_maximum_gpfn(domain.xen().control(), domain.id(), &highest) < 0)
        return fail(domain.xen().error("memory of " + domain.text(), errno));
    return regions_of_hvm(
        {.frames = frames_of(domain, info), .highest = highest, .has_devices = kind_of(info) == "HVM"});
}

// Memory that comes to be when it is touched (populate on demand) would come to be by our mapping of it.
bool grows_when_touched(const Domain& domain, const xc_dominfo_t& info) {
    std::uint64_t total = 0, cache = 0, entries = 0;
    if (info.hvm == 0) return false;
    return xc_domain_get_pod_target(domain.xen().control(), domain.id(), &total, &cache, &entries) == 0 &&
           entries > 0;
}

class XenTarget final : public Target, public Controls {
public:
    struct Parts {
        xc_dominfo_t info{};
        std::unique_ptr<ForeignFrames> frames;
        std::unique_ptr<PvFrames> pv;
        std::vector<MemoryRegion> regions;
        bool small = false;
        EventAbilities abilities;
    };

    XenTarget(Domain domain, Parts parts, JournalEntry journal)
        : domain_(std::move(domain)),
          parts_(std::move(parts)),
          version_(domain_.xen().version()),
          memory_(*parts_.frames, parts_.pv ? &parts_.pv->p2m : nullptr, std::move(parts_.regions),
                  {.small = parts_.small}),
          vcpus_(parts_.info.hvm != 0 ? hvm_vcpus(domain_.xen(), domain_.id())
                                      : pv_vcpus(domain_.xen(), domain_.id(), memory_)),
          monitored_({domain_, memory_, *parts_.frames, *vcpus_, vcpu_count()}, journal) {
        if (parts_.abilities.monitor_trap || parts_.abilities.debug_exceptions)
            events_ = std::make_unique<EventExecution>(monitored_, parts_.abilities);
        else
            whole_ = std::make_unique<XenExecution>(domain_, memory_, std::move(journal));
    }

    [[nodiscard]] bool bound_to_thread() const override {
        return false;
    }  // Xen's libraries take any, one at a time
    [[nodiscard]] std::string description() const override {
        return domain_.text() + ", " + std::string{kind_of(parts_.info)} + " guest of Xen " + version_ +
               ", memory by foreign mappings";
    }
    [[nodiscard]] const RegisterLayout& layout() const override { return x86::layout(); }
    [[nodiscard]] std::uint32_t vcpu_count() const override { return parts_.info.max_vcpu_id + 1; }
    [[nodiscard]] PhysicalMemory& memory() override { return memory_; }

    Result<bool> running() override {
        const auto info = TRY(domain_.info());
        if (condition_of(info) == Condition::gone)
            return fail(Errc::target_gone, domain_.text() + ": the domain is gone");
        return attached() ? runs() : info.paused == 0 && info.shutdown == 0;
    }

    Result<RegisterSet> read_registers(VcpuId vcpu) override {
        CHECK_OK(check(vcpu));
        return vcpus_->read(vcpu);
    }
    Result<void> complete_registers(VcpuId vcpu, RegisterSet& registers) override {
        CHECK_OK(check(vcpu));
        return vcpus_->complete(vcpu, registers);
    }
    Result<void> write_registers(VcpuId vcpu, const RegisterSet& values,
                                 std::span<const RegisterNumber> numbers) override {
        CHECK_OK(check(vcpu));
        if (!stands(vcpu)) return fail(Errc::busy, "registers cannot be written while the guest runs");
        return vcpus_->write(vcpu, values, numbers);
    }
    std::string condition() override {
        return events_ ? monitored_.why_it_stands() : whole_->why_it_stands();
    }

    Result<VcpuState> vcpu_state(VcpuId vcpu) override {
        CHECK_OK(check(vcpu));
        VcpuState state;
        state.code_bits = TRY(vcpus_->code_bits(vcpu));
        state.halted = TRY(vcpus_->halted(vcpu));
        return state;
    }
    Result<std::uint64_t> read_msr(VcpuId vcpu, std::uint32_t number) override {
        CHECK_OK(check(vcpu));
        return vcpus_->read_msr(vcpu, number);
    }

    Result<void> reset() override {
        return fail(
            Errc::unsupported,
            "Xen has no reset of a domain: `xl reboot` or `xl destroy` and `xl create` make a new one");
    }
    Result<void> nmi() override {
        if (xc_domain_send_trigger(domain_.xen().control(), domain_.id(), XEN_DOMCTL_SENDTRIGGER_NMI, 0) == 0)
            return {};
        return fail(domain_.xen().error("NMI to " + domain_.text(), errno));
    }

    [[nodiscard]] Execution* execution() override {
        if (events_) return events_.get();
        return whole_.get();
    }
    [[nodiscard]] Breakpoints* breakpoints() override {
        return events_ && has_breakpoints(parts_.abilities) ? events_.get() : nullptr;
    }
    [[nodiscard]] Controls* controls() override { return this; }
    [[nodiscard]] std::string console_elsewhere() const override {
        return "For Xen's own commands use xl in dom0.";
    }

private:
    [[nodiscard]] bool attached() const { return events_ ? events_->attached() : whole_->attached(); }
    [[nodiscard]] bool runs() const { return events_ ? events_->running() : whole_->running(); }
    [[nodiscard]] bool stands(VcpuId vcpu) const {
        return events_ ? events_->stands(vcpu) : whole_->attached() && !whole_->running();
    }
    [[nodiscard]] Result<void> check(VcpuId vcpu) const {
        if (vcpu < vcpu_count()) return {};
        return fail(Errc::no_such_thread, "no vCPU " + std::to_string(vcpu));
    }

    Domain domain_;
    Parts parts_;
    std::string version_;
    ForeignMemory memory_;
    std::unique_ptr<Vcpus> vcpus_;
    MonitoredDomain monitored_;
    // One of them: by the monitor, of a guest that has one, or by pausing the whole.
    std::unique_ptr<EventExecution> events_;
    std::unique_ptr<XenExecution> whole_;
};

}  // namespace

Result<std::unique_ptr<Target>> open_domain(Domain domain, const std::string& words) {
    // Another exogdb that has it is in the way of attach() alone.
    const auto recovered = recover_stale(domain);
    if (!recovered && recovered.error().code != Errc::busy) return fail(recovered.error());
    XenTarget::Parts parts;
    parts.info = TRY(domain.info());
    if (condition_of(parts.info) == Condition::gone)
        return fail(Errc::target_gone, domain.text() + " is being destroyed");
    if (parts.info.max_vcpu_id == XEN_INVALID_MAX_VCPU_ID)
        return fail(Errc::busy, domain.text() + " has no vCPUs yet: it is being made; try again");
    parts.frames = std::make_unique<ForeignFrames>(domain.xen(), domain.id());
    if (parts.info.hvm == 0) parts.pv = TRY(pv_frames(domain, parts.info, *parts.frames));
    parts.regions = TRY(regions_of(domain, parts.info, parts.pv.get()));
    parts.small = grows_when_touched(domain, parts.info);
    if (parts.info.hvm != 0) parts.abilities = TRY(abilities_of(domain));
    JournalEntry journal{
        .target = "xen:" + words, .name = domain.name(), .domain = domain.id(), .uuid = domain.uuid()};
    return std::make_unique<XenTarget>(std::move(domain), std::move(parts), std::move(journal));
}

}  // namespace exo::xen
