// PV: struct vcpu_guest_context, from which Xen starts such a vCPU.
#include <cstring>
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
        const auto now = context(vcpu);
        if (!now) return {};
        const bool used = (now->c.flags & VGCF_i387_valid) != 0;
        x86::fill_from_xsave(registers, as_xsave_area(&now->c.fpu_ctxt, used), false);
        return {};
    }

    Result<void> write(VcpuId vcpu, const RegisterSet& values,
                       std::span<const RegisterNumber> numbers) override {
        auto now = TRY(context(vcpu));
        auto area = as_xsave_area(&now.c.fpu_ctxt, (now.c.flags & VGCF_i387_valid) != 0);
        for (const auto number : numbers) {
            const bool high = number >= x86::ymm0h && number <= x86::ymm15h;
            if (!high && x86::put_into_xsave(area, values, number)) {
                std::memcpy(&now.c.fpu_ctxt, area.data(), sizeof now.c.fpu_ctxt);
                now.c.flags |= VGCF_i387_valid;
            } else if (!put_into_pv(now.c, values, number)) {
                return fail(Errc::unsupported, "Xen does not write this register of a PV guest");
            }
        }
        return set_context(vcpu, now);
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
