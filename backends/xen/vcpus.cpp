#include "backends/xen/vcpus.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "backends/arch/x86_64.h"
#include "backends/xen/registers.h"

namespace exo::xen {
namespace {

// Memory that a hypercall may be given: the kernel must not move it meanwhile.
class HypercallBuffer {
public:
    HypercallBuffer(xc_interface* control, std::size_t size)
        : control_(control), pages_(static_cast<int>((size + page_bytes - 1) / page_bytes)) {
        xc__hypercall_buffer_alloc_pages(control_, &buffer_, pages_);
    }
    HypercallBuffer(const HypercallBuffer&) = delete;
    HypercallBuffer& operator=(const HypercallBuffer&) = delete;
    ~HypercallBuffer() {
        if (buffer_.hbuf != nullptr) xc__hypercall_buffer_free_pages(control_, &buffer_, pages_);
    }
    [[nodiscard]] std::uint64_t* get() const { return static_cast<std::uint64_t*>(buffer_.hbuf); }

private:
    xc_interface* control_;
    int pages_;
    xc_hypercall_buffer_t buffer_{};
};

}  // namespace

Error Vcpus::error(std::string_view what, VcpuId vcpu, int number) const {
    return xen_.error(
        std::string{what} + " of vCPU " + std::to_string(vcpu) + " of Xen domain " + std::to_string(domain_),
        number);
}

Result<bool> Vcpus::halted(VcpuId vcpu) {
    xc_vcpuinfo_t info{};
    if (xc_vcpu_getinfo(xen_.control(), domain_, vcpu, &info) < 0) return fail(error("state", vcpu, errno));
    return info.online == 0 || info.blocked != 0;
}

Result<vcpu_guest_context_any_t> Vcpus::context(VcpuId vcpu) const {
    vcpu_guest_context_any_t context{};
    if (xc_vcpu_getcontext(xen_.control(), domain_, vcpu, &context) == 0) return context;
    if (errno == ENODATA)
        return fail(Errc::no_such_thread,
                    "the guest has not started vCPU " + std::to_string(vcpu) + " of its vCPUs yet");
    return fail(error("registers", vcpu, errno));
}

Result<void> Vcpus::set_context(VcpuId vcpu, vcpu_guest_context_any_t& context) const {
    if (xc_vcpu_setcontext(xen_.control(), domain_, vcpu, &context) == 0) return {};
    if (errno == EINVAL || errno == EOPNOTSUPP)
        return fail(Errc::bad_request,
                    "Xen refuses these values for the registers of vCPU " + std::to_string(vcpu));
    return fail(error("writing registers", vcpu, errno));
}

x86::XsaveArea Vcpus::Extended::area() const {
    x86::XsaveArea area(bytes.begin() + head, bytes.end());
    area.resize(std::max(area.size(), x86::least_xsave_size));
    return area;
}

void Vcpus::Extended::put(const x86::XsaveArea& area) {
    std::copy_n(area.begin(), std::min(area.size(), bytes.size() - head), bytes.begin() + head);
}

Result<std::optional<Vcpus::Extended>> Vcpus::extended(VcpuId vcpu) const {
    constexpr std::size_t least = Extended::head + x86::fxsave_size + 64;  // with the header
    xen_domctl call{};
    call.cmd = XEN_DOMCTL_getvcpuextstate;
    call.domain = static_cast<domid_t>(domain_);
    auto& state = call.u.vcpuextstate;
    state.vcpu = vcpu;
    // The first call tells the size.
    if (xc_domctl(xen_.control(), &call) != 0) {
        if (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL) return std::nullopt;
        return fail(error("FPU", vcpu, errno));
    }
    if (state.size < least) return std::nullopt;
    Extended result{state.xfeature_mask, std::vector<std::byte>(state.size)};
    const HypercallBuffer buffer{xen_.control(), result.bytes.size()};
    state.buffer.p = buffer.get();
    if (buffer.get() == nullptr || xc_domctl(xen_.control(), &call) != 0)
        return fail(error("FPU", vcpu, errno));
    // One that has not used it gives as much as it has.
    if (state.size < least) return std::nullopt;
    std::memcpy(result.bytes.data(), buffer.get(), result.bytes.size());
    return result;
}

Result<void> Vcpus::set_extended(VcpuId vcpu, const Extended& extended) const {
    const HypercallBuffer buffer{xen_.control(), extended.bytes.size()};
    if (buffer.get() == nullptr) return fail(error("writing the FPU", vcpu, errno));
    std::memcpy(buffer.get(), extended.bytes.data(), extended.bytes.size());
    xen_domctl call{};
    call.cmd = XEN_DOMCTL_setvcpuextstate;
    call.domain = static_cast<domid_t>(domain_);
    auto& state = call.u.vcpuextstate;
    state.vcpu = vcpu;
    state.xfeature_mask = extended.mask;
    state.size = extended.bytes.size();
    state.buffer.p = buffer.get();
    if (xc_domctl(xen_.control(), &call) == 0) return {};
    return fail(error("writing the FPU", vcpu, errno));
}

Result<void> Vcpus::fill_fpu(VcpuId vcpu, RegisterSet& registers) const {
    if (const auto saved = TRY(extended(vcpu))) {
        const bool avx = (registers.get(x86::cr4).value_or(0) & x86::cr4_osxsave) != 0;
        x86::fill_from_xsave(registers, saved->area(), avx);
        return {};
    }
    const auto now = TRY(context(vcpu));
    const bool used = (now.c.flags & VGCF_i387_valid) != 0;
    x86::fill_from_xsave(registers, as_xsave_area(&now.c.fpu_ctxt, used), false);
    return {};
}

Result<void> Vcpus::change(VcpuId vcpu, const std::function<void(vcpu_guest_context_t&)>& change) const {
    auto now = TRY(context(vcpu));
    const auto saved = TRY(extended(vcpu));
    change(now.c);
    CHECK_OK(set_context(vcpu, now));
    const bool used = (now.c.flags & VGCF_i387_valid) != 0;
    return used && saved ? set_extended(vcpu, *saved) : Result<void>{};
}

// xc_vcpu_setcontext() leaves of the FPU what FXSAVE has (xen/arch/x86/domain.c, arch_set_info_guest()): the
// rest is put back behind it.
Result<void> Vcpus::write_context(VcpuId vcpu, const RegisterSet& values,
                                  std::span<const RegisterNumber> numbers, Put put) const {
    auto now = TRY(context(vcpu));
    auto saved = TRY(extended(vcpu));
    bool used = (now.c.flags & VGCF_i387_valid) != 0;
    auto area = saved ? saved->area() : as_xsave_area(&now.c.fpu_ctxt, used);
    for (const auto number : numbers) {
        const bool high = number >= x86::ymm0h && number <= x86::ymm15h;
        if (high && !saved) return fail(Errc::unsupported, "this vCPU has no ymm registers");
        if (x86::put_into_xsave(area, values, number))
            used = true;
        else if (!put(now.c, values, number))
            return fail(Errc::unsupported, "Xen does not write this register");
    }
    if (used) {
        std::memcpy(&now.c.fpu_ctxt, area.data(), sizeof now.c.fpu_ctxt);
        now.c.flags |= VGCF_i387_valid;
    }
    CHECK_OK(set_context(vcpu, now));
    if (!used || !saved) return {};
    saved->put(area);
    return set_extended(vcpu, *saved);
}

}  // namespace exo::xen
