#include "backends/kvm/target.h"

#include <linux/kvm.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "backends/arch/x86_64.h"
#include "backends/host/process.h"
#include "backends/kvm/execution.h"
#include "backends/kvm/look_again.h"
#include "backends/kvm/memory.h"
#include "backends/kvm/registers.h"

namespace exo::kvm {
namespace {

class KvmTarget final : public Target, public Controls {
public:
    KvmTarget(Vm vm, Process process, std::string target)
        : vm_(std::move(vm)),
          process_(std::move(process)),
          monitor_(name_of_vmm(vm_.pid)),
          has_monitor_(!target.starts_with("kvm:")),
          memory_(process_, monitor_),
          execution_(vm_, process_, memory_, std::move(target)) {
        execution_.when_it_stands([this](bool attached) {
            if (attached) return look_again(true);
            if (look_again_.open()) memory_.look_before_use();
        });
        memory_.when_used([this] {
            if (execution_.attached() && !execution_.running()) look_again(false);
        });
    }

    Result<void> load() {
        return execution_.while_stopped([this] { return find_memory(); });
    }

    [[nodiscard]] std::string description() const override {
        return "KVM guest of process " + std::to_string(vm_.pid) + " (" + monitor_ + "), memory by " +
               memory_.access_method();
    }
    [[nodiscard]] std::vector<std::string> remarks() const override {
        return {memory_.notes().begin(), memory_.notes().end()};
    }
    [[nodiscard]] const RegisterLayout& layout() const override { return x86::layout(); }
    [[nodiscard]] std::uint32_t vcpu_count() const override { return execution_.vcpu_count(); }
    [[nodiscard]] PhysicalMemory& memory() override { return memory_; }
    [[nodiscard]] bool bound_to_thread() const override { return false; }  // KvmExecution has its own

    void where_stops_are_seen(const std::function<void()>& work) override { execution_.trace(work); }

    Result<bool> running() override {
        if (!process_.alive()) return fail(vmm_gone());
        if (execution_.attached()) return execution_.running();
        return !execution_.held_by_vmm();
    }

    Result<RegisterSet> read_registers(VcpuId vcpu) override {
        if (vcpu >= vcpu_count()) return fail(Errc::no_such_thread, "no vCPU " + std::to_string(vcpu));
        if (execution_.stands(vcpu)) return stopped_registers(vcpu);
        // All at once, so that they are of one moment and the guest is stopped once for them.
        if (snapshots_.empty() || served_.at(vcpu)) CHECK_OK(take_snapshot());
        served_.at(vcpu) = true;
        return snapshots_.at(vcpu);
    }

    Result<void> complete_registers(VcpuId vcpu, RegisterSet& registers) override {
        if (!execution_.stands(vcpu)) return {};
        if (!registers.available(x86::k_gs_base)) CHECK_OK(fill_kernel_gs(vcpu, registers));
        const auto xsave = TRY(get_xsave(vcpu));
        const bool avx = (registers.get(x86::cr4).value_or(0) & x86::cr4_osxsave) != 0;
        fill_from_xsave(registers, xsave, avx);
        return {};
    }

    Result<void> write_registers(VcpuId vcpu, const RegisterSet& values,
                                 std::span<const RegisterNumber> numbers) override;
    // Loaded by the next KVM_RUN, whoever makes it.
    Result<void> move_to(VcpuId vcpu, std::uint64_t pc) override {
        if (vcpu >= vcpu_count() || !execution_.stands(vcpu))
            return fail(Errc::busy, "registers cannot be written while the guest runs");
        return execution_.vcpu(vcpu).move_to(pc);
    }

    Result<VcpuState> vcpu_state(VcpuId vcpu) override;
    Result<std::uint64_t> read_msr(VcpuId vcpu, std::uint32_t number) override;

    // A reset is devices too, and those are the VMM's.
    Result<void> reset() override {
        return fail(Errc::unsupported,
                    "KVM has no reset of a machine: ask its monitor" +
                        std::string{has_monitor_ ? " (QMP system_reset, virsh reset)" : ""});
    }
    Result<void> nmi() override;

    [[nodiscard]] Execution* execution() override { return &execution_; }
    [[nodiscard]] Controls* controls() override { return this; }
    // One that waits for a vCPU would wait until the guest goes on, and its monitor with it.
    [[nodiscard]] std::string console_elsewhere() const override {
        return has_monitor_ ? "For QEMU's own commands serve the guest with --backend qemu." : "";
    }
    [[nodiscard]] Breakpoints* breakpoints() override { return &execution_; }

private:
    Result<Viewpoints> viewpoints() {
        Viewpoints from;
        for (VcpuId id = 0; id < vcpu_count(); ++id) {
            const auto area = TRY(execution_.vcpu(id).run_area());
            const auto& sregs = area.s.regs.sregs;
            const bool paging = (sregs.cr0 & x86::cr0_pg) != 0;
            from.push_back(paging ? sregs.cr3 : (sregs.cs.base + area.s.regs.regs.rip) >> 12U);
        }
        return from;
    }

    // What it finds is told by remarks(); what was found before stays if it finds nothing.
    void look_again(bool attached) {
        if (!look_again_.open() && !(attached && memory_.moved())) return;
        const auto from = viewpoints();
        if (!from || (!attached && !look_again_.worth_it(*from, Clock::now()))) return;
        static_cast<void>(find_memory());
    }

    Result<void> find_memory() {
        const auto begin = Clock::now();
        auto from = TRY(viewpoints());
        auto found = load_memory();
        if (memory_.regions().empty()) from.clear();  // any place is as good as this one
        look_again_.looked(std::move(from), !memory_.notes().empty(), begin, Clock::now());
        return found;
    }

    Result<void> load_memory() {
        std::vector<Witness> witnesses;
        for (VcpuId id = 0; id < vcpu_count(); ++id) {
            const auto area = TRY(execution_.vcpu(id).run_area());
            const auto& sregs = area.s.regs.sregs;
            const auto& regs = area.s.regs.regs;
            Witness witness{.cr0 = sregs.cr0, .cr3 = sregs.cr3, .cr4 = sregs.cr4, .efer = sregs.efer};
            witness.addresses = {sregs.cs.base + regs.rip,
                                 sregs.ss.base + regs.rsp,
                                 sregs.idt.base,
                                 sregs.gdt.base,
                                 sregs.tr.base,
                                 sregs.gs.base,
                                 sregs.fs.base};
            witness.translate = [this, id](VirtualAddress address) {
                return execution_.translate(id, address);
            };
            witnesses.push_back(std::move(witness));
        }
        return memory_.load(witnesses);
    }

    Result<RegisterSet> stopped_registers(VcpuId vcpu) {
        const auto area = TRY(execution_.vcpu(vcpu).run_area());
        RegisterSet registers{layout()};
        fill_from_regs(registers, area.s.regs.regs);
        fill_from_sregs(registers, area.s.regs.sregs);
        // In user mode gs is the program's, and where the kernel's data are is told by the MSR alone.
        const bool user_mode = (area.s.regs.sregs.cs.selector & 3U) == 3;
        if (user_mode) CHECK_OK(fill_kernel_gs(vcpu, registers));
        return registers;
    }

    Result<void> take_snapshot() {
        snapshots_.clear();
        served_.assign(vcpu_count(), false);
        return execution_.while_stopped([this]() -> Result<void> {
            for (VcpuId id = 0; id < vcpu_count(); ++id) {
                auto registers = TRY(stopped_registers(id));
                if (!registers.available(x86::k_gs_base)) CHECK_OK(fill_kernel_gs(id, registers));
                snapshots_.push_back(std::move(registers));
            }
            return {};
        });
    }

    Result<void> fill_kernel_gs(VcpuId vcpu, RegisterSet& registers) {
        if (const auto base = TRY(execution_.vcpu(vcpu).kernel_gs_base()))
            registers.set(x86::k_gs_base, *base);
        return {};
    }

    // Where there is more than 4 KiB of state, KVM_GET_XSAVE fails and the newer one has to be used.
    Result<XsaveArea> get_xsave(VcpuId vcpu) {
        if (!xsave_size_)
            xsave_size_ = static_cast<std::size_t>(
                std::max<std::int64_t>(TRY(execution_.extension(KVM_CAP_XSAVE2)), 0));
        const bool more = *xsave_size_ > least_xsave_size;
        if (*xsave_size_ > Springboard::argument_size)
            return fail(Errc::unsupported, "this guest's CPU has more state than is provided for");
        XsaveArea xsave(std::max(*xsave_size_, least_xsave_size));
        const auto request = more ? ioctl_get_xsave2 : ioctl_get_xsave;
        const auto result = TRY(execution_.vcpu(vcpu).ioctl(request, {}, xsave));
        if (result < 0)
            return fail(Errc::unsupported,
                        std::string{"KVM_GET_XSAVE: "} + std::strerror(static_cast<int>(-result)));
        return xsave;
    }

    Vm vm_;
    Process process_;
    std::string monitor_;
    bool has_monitor_;  // exogdb found the guest by QEMU's
    SlotMemory memory_;
    KvmExecution execution_;
    LookAgain look_again_;
    std::vector<RegisterSet> snapshots_;  // of a guest that runs
    std::vector<bool> served_;
    std::optional<std::size_t> xsave_size_;  // KVM_CAP_XSAVE2
};

Result<VcpuState> KvmTarget::vcpu_state(VcpuId vcpu) {
    if (vcpu >= vcpu_count()) return fail(Errc::no_such_thread, "no vCPU " + std::to_string(vcpu));
    auto& there = execution_.vcpu(vcpu);
    const auto area = TRY(there.run_area());
    const auto& cs = area.s.regs.sregs.cs;
    const bool long_mode = (area.s.regs.sregs.efer & x86::efer_lma) != 0;
    VcpuState state;
    state.code_bits = static_cast<std::uint8_t>(long_mode && cs.l != 0 ? 64 : cs.db != 0 ? 32 : 16);
    // EINVAL where the interrupt controller is not KVM's: then the VMM knows it alone.
    kvm_mp_state activity{};
    if (TRY(there.ioctl(KVM_GET_MP_STATE, {}, std::as_writable_bytes(std::span{&activity, 1}))) == 0)
        state.halted = activity.mp_state != KVM_MP_STATE_RUNNABLE;
    return state;
}

Result<std::uint64_t> KvmTarget::read_msr(VcpuId vcpu, std::uint32_t number) {
    if (vcpu >= vcpu_count()) return fail(Errc::no_such_thread, "no vCPU " + std::to_string(vcpu));
    if (const auto value = TRY(execution_.vcpu(vcpu).msr(number))) return *value;
    return fail(Errc::not_found, "KVM has no MSR " + hex(number));
}

Result<void> KvmTarget::nmi() {
    return execution_.while_stopped([this]() -> Result<void> {
        const auto result = TRY(execution_.vcpu(0).ioctl(KVM_NMI, {}));
        if (result < 0)
            return fail(Errc::unsupported,
                        std::string{"KVM_NMI: "} + std::strerror(static_cast<int>(-result)));
        return {};
    });
}

Result<void> KvmTarget::write_registers(VcpuId vcpu, const RegisterSet& values,
                                        std::span<const RegisterNumber> numbers) {
    if (!execution_.attached() || execution_.running())
        return fail(Errc::busy, "registers cannot be written while the guest runs");
    if (vcpu >= vcpu_count()) return fail(Errc::no_such_thread, "no vCPU " + std::to_string(vcpu));
    auto& there = execution_.vcpu(vcpu);
    auto area = TRY(there.run_area());
    std::uint64_t fields = 0;
    std::optional<XsaveArea> xsave;
    for (const auto number : numbers) {
        switch (holder_of(number)) {
            case Holder::regs:
                put_into_regs(area.s.regs.regs, values, number);
                fields |= KVM_SYNC_X86_REGS;
                break;
            case Holder::sregs:
                put_into_sregs(area.s.regs.sregs, values, number);
                fields |= KVM_SYNC_X86_SREGS;
                break;
            case Holder::xsave:
                if (!xsave) xsave = TRY(get_xsave(vcpu));
                put_into_xsave(*xsave, values, number);
                break;
            case Holder::msr: {
                if (!TRY(there.set_kernel_gs_base(values.get(number).value_or(0))))
                    return fail(Errc::unsupported, "KVM does not take the MSR");
                break;
            }
            case Holder::none: return fail(Errc::unsupported, "KVM does not write this register");
        }
    }
    if (xsave && TRY(there.ioctl(ioctl_set_xsave, *xsave)) < 0)
        return fail(Errc::bad_request, "KVM_SET_XSAVE refuses these values");
    if (fields != 0) CHECK_OK(there.write_sync_registers(area.s.regs, fields));
    return {};
}

}  // namespace

Result<std::unique_ptr<Target>> open(const std::string& name, const std::string& target_words,
                                     Memory memory) {
    auto vm = TRY(find_vm(TRY(VmName::parse(name))));
    auto process = TRY(Process::open(vm.pid));
    auto target = std::make_unique<KvmTarget>(std::move(vm), std::move(process), target_words);
    auto loaded = target->load();
    const bool may_come = memory == Memory::may_come && !loaded && loaded.error().code == Errc::not_found;
    if (!loaded && !may_come) return fail(std::move(loaded).error());
    return target;
}

}  // namespace exo::kvm
