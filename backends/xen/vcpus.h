// Registers of a domain's vCPUs, as its kind has them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "backends/api/target.h"
#include "backends/xen/hypervisor.h"
#include "backends/xen/memory.h"

namespace exo::xen {

class Vcpus {
public:
    Vcpus(const Hypervisor& xen, DomainId domain) : xen_(xen), domain_(domain) {}
    Vcpus(const Vcpus&) = delete;
    Vcpus& operator=(const Vcpus&) = delete;
    virtual ~Vcpus() = default;

    // As Target has them. Xen holds the vCPU for the moment of each call, if the guest runs.
    virtual Result<RegisterSet> read(VcpuId vcpu) = 0;
    virtual Result<void> complete(VcpuId vcpu, RegisterSet& registers) = 0;
    virtual Result<void> write(VcpuId vcpu, const RegisterSet& values,
                               std::span<const RegisterNumber> numbers) = 0;
    virtual Result<std::uint64_t> read_msr(VcpuId vcpu, std::uint32_t number) = 0;
    virtual Result<std::uint8_t> code_bits(VcpuId vcpu) = 0;
    // By HLT, by blocking in Xen, or because nobody has started it.
    Result<bool> halted(VcpuId vcpu);

protected:
    [[nodiscard]] const Hypervisor& xen() const { return xen_; }
    [[nodiscard]] DomainId domain() const { return domain_; }
    [[nodiscard]] Error error(std::string_view what, VcpuId vcpu, int number) const;
    Result<vcpu_guest_context_any_t> context(VcpuId vcpu) const;
    // Without what is not in it: XSAVE state beyond SSE is lost (xen/arch/x86/domain.c,
    // arch_set_info_guest()).
    Result<void> set_context(VcpuId vcpu, vcpu_guest_context_any_t& context) const;

private:
    const Hypervisor& xen_;
    DomainId domain_;
};

std::unique_ptr<Vcpus> hvm_vcpus(const Hypervisor& xen, DomainId domain);
// `memory` tells the guest's own number of the frame that CR3 has.
std::unique_ptr<Vcpus> pv_vcpus(const Hypervisor& xen, DomainId domain, PhysicalMemory& memory);

}  // namespace exo::xen
