#include "backends/xen/vcpus.h"

#include <cerrno>
#include <string>

namespace exo::xen {

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

}  // namespace exo::xen
