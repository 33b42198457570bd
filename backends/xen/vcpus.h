// Registers of a domain's vCPUs, as its kind has them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backends/api/target.h"
#include "backends/arch/xsave_area.h"
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
    // Reads Xen's structure of a vCPU that stands, has it changed, writes it; nothing else changes.
    Result<void> change(VcpuId vcpu, const std::function<void(vcpu_guest_context_t&)>& change) const;

protected:
    [[nodiscard]] const Hypervisor& xen() const { return xen_; }
    [[nodiscard]] DomainId domain() const { return domain_; }
    [[nodiscard]] Error error(std::string_view what, VcpuId vcpu, int number) const;
    Result<vcpu_guest_context_any_t> context(VcpuId vcpu) const;

    // Of XEN_DOMCTL_getvcpuextstate: XCR0, all bits that it ever had, and the XSAVE area.
    struct Extended {
        std::uint64_t mask = 0;
        std::vector<std::byte> bytes;
        static constexpr std::size_t head = 2 * sizeof(std::uint64_t);

        [[nodiscard]] x86::XsaveArea area() const;
        void put(const x86::XsaveArea& area);
    };
    // Nothing: the machine has no XSAVE, or the vCPU has not used it.
    Result<std::optional<Extended>> extended(VcpuId vcpu) const;

    Result<void> fill_fpu(VcpuId vcpu, RegisterSet& registers) const;
    // Puts a register into the structure; false for one that is not held there.
    using Put = bool (*)(vcpu_guest_context_t&, const RegisterSet&, RegisterNumber);
    // Of the FPU's and those that `put` takes, all; unsupported for another. Nothing else changes.
    Result<void> write_context(VcpuId vcpu, const RegisterSet& values,
                               std::span<const RegisterNumber> numbers, Put put) const;

private:
    Result<void> set_context(VcpuId vcpu, vcpu_guest_context_any_t& context) const;
    Result<void> set_extended(VcpuId vcpu, const Extended& extended) const;

    const Hypervisor& xen_;
    DomainId domain_;
};

std::unique_ptr<Vcpus> hvm_vcpus(const Hypervisor& xen, DomainId domain);
// `memory` tells the guest's own number of the frame that CR3 has.
std::unique_ptr<Vcpus> pv_vcpus(const Hypervisor& xen, DomainId domain, PhysicalMemory& memory);

}  // namespace exo::xen
