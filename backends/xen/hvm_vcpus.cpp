// HVM and PVH: the records of the domain's context, which migration is made of, have all registers.
#include <x86intrin.h>

#include <algorithm>
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
        const auto saved = TRY(xsave(vcpu));
        const bool avx = saved && (registers.get(x86::cr4).value_or(0) & x86::cr4_osxsave) != 0;
        const bool used = (there->flags & XEN_X86_FPU_INITIALISED) != 0;
        x86::fill_from_xsave(registers, saved ? saved->area() : as_xsave_area(there->fpu_regs, used), avx);
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
    // A record CPU_XSAVE: struct hvm_hw_cpu_xsave, then as much of the area as the vCPU has used.
    struct Xsave {
        std::vector<std::byte> record;
        static constexpr std::size_t head = offsetof(hvm_hw_cpu_xsave, save_area);

        [[nodiscard]] x86::XsaveArea area() const {
            x86::XsaveArea area(record.begin() + head, record.end());
            area.resize(std::max(area.size(), x86::least_xsave_size));
            return area;
        }
        void put(const x86::XsaveArea& area) {
            const auto size = std::min(area.size(), record.size() - head);
            std::copy_n(area.begin(), size, record.begin() + head);
        }
        [[nodiscard]] bool has_more_than_sse() const {
            return (x86::xstate_bv(area()) & ~(x86::x87_state | x86::sse_state)) != 0;
        }
    };

    // Empty: Xen has none of that kind for this vCPU.
    Result<std::vector<std::byte>> record(unsigned type, VcpuId vcpu) {
        std::vector<std::byte> bytes(longest_record);
        const int rc = xc_domain_hvm_getcontext_partial(
            xen().control(), domain(), static_cast<std::uint16_t>(type), static_cast<std::uint16_t>(vcpu),
            bytes.data(), static_cast<std::uint32_t>(bytes.size()));
        if (rc >= 0) return bytes;
        if (errno == ENOENT || errno == ENODATA || errno == EINVAL) return std::vector<std::byte>{};
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

    // Nothing: the machine has no XSAVE, or the vCPU has not used it.
    Result<std::optional<Xsave>> xsave(VcpuId vcpu) {
        const auto context = TRY(whole_context());
        const auto found = find_record(context, CPU_XSAVE_CODE, static_cast<std::uint16_t>(vcpu));
        if (!found || found->size() < Xsave::head + x86::fxsave_size + 64) return std::nullopt;
        return Xsave{{found->begin(), found->end()}};
    }

    Result<void> set_record(const HvmContext& whole, unsigned type, VcpuId vcpu, ConstBytes content) {
        auto context = with_one_record(whole, static_cast<std::uint16_t>(type),
                                       static_cast<std::uint16_t>(vcpu), content);
        if (!context) return fail(Errc::bad_data, "Xen gave a context without a header");
        const int rc = xc_domain_hvm_setcontext(xen().control(), domain(),
                                                reinterpret_cast<std::uint8_t*>(context->data()),
                                                static_cast<std::uint32_t>(context->size()));
        if (rc == 0) return {};
        if (errno == EINVAL)
            return fail(Errc::bad_request,
                        "Xen refuses these values for the registers of vCPU " + std::to_string(vcpu));
        return fail(error("writing registers", vcpu, errno));
    }

    Result<void> write_general(VcpuId vcpu, const RegisterSet& values,
                               std::span<const RegisterNumber> numbers);
    Result<void> write_system(VcpuId vcpu, const RegisterSet& values, std::span<const RegisterNumber> numbers,
                              bool with_fpu);
    Result<void> write_fpu(VcpuId vcpu, const RegisterSet& values, std::span<const RegisterNumber> numbers,
                           Xsave saved);
};

// Not by the record CPU: that holds the guest's time stamp counter too, which would go back.
Result<void> HvmVcpus::write_general(VcpuId vcpu, const RegisterSet& values,
                                     std::span<const RegisterNumber> numbers) {
    const auto saved = TRY(xsave(vcpu));
    auto now = TRY(context(vcpu));
    for (const auto number : numbers) put_into_user_regs(now.c, values, number);
    CHECK_OK(set_context(vcpu, now));
    if (!saved || !saved->has_more_than_sse()) return {};
    return set_record(TRY(whole_context()), CPU_XSAVE_CODE, vcpu, saved->record);
}

// The time stamp counter is put forward by what has passed since, so that it is late by less than a call
// takes.
Result<void> HvmVcpus::write_system(VcpuId vcpu, const RegisterSet& values,
                                    std::span<const RegisterNumber> numbers, bool with_fpu) {
    const auto whole = TRY(whole_context());
    const auto then = __rdtsc();
    const auto found = find_record(whole, HVM_SAVE_CODE(CPU), static_cast<std::uint16_t>(vcpu));
    hvm_hw_cpu cpu{};
    if (!found || found->size() != sizeof cpu)
        return fail(Errc::no_such_thread, "the guest has not started vCPU " + std::to_string(vcpu));
    std::memcpy(&cpu, found->data(), sizeof cpu);
    auto area = as_xsave_area(cpu.fpu_regs, (cpu.flags & XEN_X86_FPU_INITIALISED) != 0);
    for (const auto number : numbers)
        if (!put_into_hvm(cpu, values, number)) x86::put_into_xsave(area, values, number);
    if (with_fpu) {
        std::memcpy(cpu.fpu_regs, area.data(), sizeof cpu.fpu_regs);
        cpu.flags |= XEN_X86_FPU_INITIALISED;
    }
    cpu.tsc += __rdtsc() - then;
    return set_record(whole, HVM_SAVE_CODE(CPU), vcpu, std::as_bytes(std::span{&cpu, 1}));
}

Result<void> HvmVcpus::write_fpu(VcpuId vcpu, const RegisterSet& values,
                                 std::span<const RegisterNumber> numbers, Xsave saved) {
    auto area = saved.area();
    for (const auto number : numbers) x86::put_into_xsave(area, values, number);
    saved.put(area);
    return set_record(TRY(whole_context()), CPU_XSAVE_CODE, vcpu, saved.record);
}

Result<void> HvmVcpus::write(VcpuId vcpu, const RegisterSet& values,
                             std::span<const RegisterNumber> numbers) {
    std::vector<RegisterNumber> general, system, fpu;
    hvm_hw_cpu trial{};
    for (const auto number : numbers) {
        if (is_general(number))
            general.push_back(number);
        else if (x86::is_in_xsave(number))
            fpu.push_back(number);
        else if (put_into_hvm(trial, values, number))
            system.push_back(number);
        else
            return fail(Errc::unsupported, "Xen does not write this register");
    }
    // The record CPU_XSAVE is loaded behind what the record CPU has of the FPU, as a migration does.
    const auto saved = fpu.empty() && system.empty() ? std::nullopt : TRY(xsave(vcpu));
    if (!general.empty()) CHECK_OK(write_general(vcpu, values, general));
    const bool all_by_cpu = !fpu.empty() && !saved;
    if (all_by_cpu) {
        const bool high =
            std::ranges::any_of(fpu, [](RegisterNumber n) { return n >= x86::ymm0h && n <= x86::ymm15h; });
        if (high)
            return fail(Errc::unsupported,
                        "this machine has no ymm registers, or the guest does not use them");
        system.insert(system.end(), fpu.begin(), fpu.end());
    }
    if (!system.empty()) CHECK_OK(write_system(vcpu, values, system, all_by_cpu));
    if (saved) CHECK_OK(write_fpu(vcpu, values, fpu, *saved));
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
