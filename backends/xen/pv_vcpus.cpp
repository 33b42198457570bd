// PV: struct vcpu_guest_context, from which Xen starts such a vCPU.
#include <string>

#include "backends/arch/x86_64.h"
#include "backends/xen/registers.h"
#include "backends/xen/vcpus.h"

namespace exo::xen {
namespace {

class PvVcpus final : public Vcpus {
public:
    PvVcpus(const Hypervisor& xen, DomainId domain, PhysicalMemory& memory)
        : Vcpus(xen, domain), memory_(memory) {}

    Result<RegisterSet> read(VcpuId vcpu) override {
        RegisterSet registers{x86::layout()};
        const auto now = context(vcpu);
        // Nobody has started it: no register of it has a value.
        if (!now && now.error().code == Errc::no_such_thread) return registers;
        if (!now) return fail(now.error());
        fill_from_pv(registers, now->c);
        if (const auto root = memory_.from_machine(PhysicalAddress{now->c.ctrlreg[3]}))
            registers.set(x86::cr3, raw(*root));
        else
            registers.set_unavailable(x86::cr3);
        return registers;
    }

    Result<void> complete(VcpuId vcpu, RegisterSet& registers) override {
        if (!registers.available(x86::rip)) return {};
        return fill_fpu(vcpu, registers);
    }
    Result<void> write(VcpuId vcpu, const RegisterSet& values,
                       std::span<const RegisterNumber> numbers) override {
        return write_context(vcpu, values, numbers, put_into_pv);
    }

    Result<std::uint64_t> read_msr(VcpuId vcpu, std::uint32_t number) override {
        static_cast<void>(vcpu);
        return fail(Errc::unsupported,
                    "a PV guest has no MSR " + hex(number) + " of its own: Xen has those of the machine");
    }

    Result<std::uint8_t> code_bits(VcpuId) override { return std::uint8_t{64}; }

private:
    PhysicalMemory& memory_;
};

}  // namespace

std::unique_ptr<Vcpus> pv_vcpus(const Hypervisor& xen, DomainId domain, PhysicalMemory& memory) {
    return std::make_unique<PvVcpus>(xen, domain, memory);
}

}  // namespace exo::xen
