// HVM and PVH: the records of the domain's context, which migration is made of, have all registers.
#include <x86intrin.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "backends/arch/x86_64.h"
#include "backends/arch/xsave_area.h"
#include "backends/xen/hvm_context.h"
#include "backends/xen/registers.h"
#include "backends/xen/vcpus.h"

namespace exo::xen {
namespace {

constexpr std::size_t lapic_task_priority = 0x80;  // Intel SDM vol. 3A, table 11-1
constexpr std::size_t longest_record = 16384;      // AVX-512 and AMX have 11 KiB
constexpr std::uint32_t msr_pat = 0x277;
// VMX's access rights, which Xen keeps of both kinds of CPU (Intel SDM vol. 3C, table 25-2), without bits
// 8–11.
constexpr std::uint32_t segment_long = 1U << 9, segment_big = 1U << 10;

class HvmVcpus final : public Vcpus {
public:
    using Vcpus::Vcpus;

    Result<RegisterSet> read(VcpuId vcpu) override {
        RegisterSet registers{x86::layout()};
        if (const auto there = TRY(cpu(vcpu)))
            fill_from_hvm(registers, *there);
        else
            fill_as_after_init(registers);
        return registers;
    }

    Result<void> complete(VcpuId vcpu, RegisterSet& registers) override {
        const auto there = TRY(cpu(vcpu));
        if (!there) return {};
        CHECK_OK(fill_fpu(vcpu, registers));
        const auto lapic = TRY(record(HVM_SAVE_CODE(LAPIC_REGS), vcpu));
        if (lapic.size() > lapic_task_priority)
            registers.set(x86::cr8, std::to_integer<unsigned>(lapic[lapic_task_priority]) >> 4U);
        return {};
    }

    Result<void> write(VcpuId vcpu, const RegisterSet& values,
                       std::span<const RegisterNumber> numbers) override;
    Result<std::uint64_t> read_msr(VcpuId vcpu, std::uint32_t number) override;

    Result<std::uint8_t> code_bits(VcpuId vcpu) override {
        const auto there = TRY(cpu(vcpu));
        if (!there) return std::uint8_t{16};
        const bool long_mode = (there->msr_efer & x86::efer_lma) != 0;
        if (long_mode && (there->cs_arbytes & segment_long) != 0) return std::uint8_t{64};
        return static_cast<std::uint8_t>((there->cs_arbytes & segment_big) != 0 ? 32 : 16);
    }

private:
    // Empty: Xen has none of that kind for this vCPU.
    Result<std::vector<std::byte>> record(unsigned type, VcpuId vcpu) {
        std::vector<std::byte> bytes(longest_record);
        const int rc = xc_domain_hvm_getcontext_partial(
            xen().control(), domain(), static_cast<std::uint16_t>(type), static_cast<std::uint16_t>(vcpu),
            bytes.data(), static_cast<std::uint32_t>(bytes.size()));
        if (rc >= 0) return bytes;
        if (errno == ENOENT || errno == ENODATA) return std::vector<std::byte>{};
        return fail(error("registers", vcpu, errno));
    }

    // Nothing: nobody has started it.
    Result<std::optional<hvm_hw_cpu>> cpu(VcpuId vcpu) {
        const auto bytes = TRY(record(HVM_SAVE_CODE(CPU), vcpu));
        if (bytes.size() < sizeof(hvm_hw_cpu)) return std::nullopt;
        hvm_hw_cpu cpu{};
        std::memcpy(&cpu, bytes.data(), sizeof cpu);
        return cpu;
    }

    Result<HvmContext> whole_context() {
        const int size = xc_domain_hvm_getcontext(xen().control(), domain(), nullptr, 0);
        if (size < 0) return fail(error("registers", 0, errno));
        HvmContext context(static_cast<std::size_t>(size));
        const int got = xc_domain_hvm_getcontext(xen().control(), domain(),
                                                 reinterpret_cast<std::uint8_t*>(context.data()),
                                                 static_cast<std::uint32_t>(size));
        if (got < 0) return fail(error("registers", 0, errno));
        context.resize(std::min(context.size(), static_cast<std::size_t>(got)));
        return context;
    }

    Result<void> write_system(VcpuId vcpu, const RegisterSet& values,
                              std::span<const RegisterNumber> numbers);
};

// The records hold time stamp counters too, which are put forward by what has passed since: all vCPUs'
// together are late by less than a call takes.
Result<void> HvmVcpus::write_system(VcpuId vcpu, const RegisterSet& values,
                                    std::span<const RegisterNumber> numbers) {
    constexpr auto types = std::to_array<std::uint16_t>({HVM_SAVE_CODE(CPU), CPU_XSAVE_CODE});
    const auto whole = TRY(whole_context());
    const auto then = __rdtsc();
    bool found = false;
    auto context =
        for_loading(whole, types, [&](std::uint16_t type, std::uint16_t instance, MutableBytes record) {
            hvm_hw_cpu cpu{};
            if (type != types[0] || record.size() != sizeof cpu) return;
            std::memcpy(&cpu, record.data(), sizeof cpu);
            if (instance == vcpu) {
                found = true;
                for (const auto number : numbers) put_into_hvm(cpu, values, number);
            }
            cpu.tsc += __rdtsc() - then;
            std::memcpy(record.data(), &cpu, sizeof cpu);
        });
    if (!context || !found)
        return fail(Errc::no_such_thread, "the guest has not started vCPU " + std::to_string(vcpu));
    const int rc =
        xc_domain_hvm_setcontext(xen().control(), domain(), reinterpret_cast<std::uint8_t*>(context->data()),
                                 static_cast<std::uint32_t>(context->size()));
    if (rc == 0) return {};
    if (errno != EINVAL) return fail(error("writing registers", vcpu, errno));
    return fail(Errc::bad_request,
                "Xen refuses these values for the registers of vCPU " + std::to_string(vcpu));
}

// By the record CPU only what is nowhere else: that one has more than registers.
Result<void> HvmVcpus::write(VcpuId vcpu, const RegisterSet& values,
                             std::span<const RegisterNumber> numbers) {
    std::vector<RegisterNumber> system, others;
    hvm_hw_cpu trial{};
    for (const auto number : numbers) {
        const bool in_context = is_general(number) || x86::is_in_xsave(number);
        if (!in_context && !put_into_hvm(trial, values, number))
            return fail(Errc::unsupported, "Xen does not write this register");
        (in_context ? others : system).push_back(number);
    }
    if (!others.empty()) CHECK_OK(write_context(vcpu, values, others, put_into_user_regs));
    if (!system.empty()) return write_system(vcpu, values, system);
    return {};
}

Result<std::uint64_t> HvmVcpus::read_msr(VcpuId vcpu, std::uint32_t number) {
    const auto there = TRY(cpu(vcpu));
    if (there) {
        if (const auto value = msr_of(*there, number)) return *value;
    }
    if (number == msr_pat) {
        const auto bytes = TRY(record(HVM_SAVE_CODE(MTRR), vcpu));
        hvm_hw_mtrr mtrr{};
        if (bytes.size() >= sizeof mtrr) {
            std::memcpy(&mtrr, bytes.data(), sizeof mtrr);
            return mtrr.msr_pat_cr;
        }
    }
    return fail(Errc::not_found, "Xen shows no MSR " + hex(number) + " of its guests");
}

}  // namespace

std::unique_ptr<Vcpus> hvm_vcpus(const Hypervisor& xen, DomainId domain) {
    return std::make_unique<HvmVcpus>(xen, domain);
}

}  // namespace exo::xen
