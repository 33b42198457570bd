// The domains that libvirt knows, for `exogdb list`.
#include <cstdlib>

#include "backends/host/process.h"
#include "backends/qemu/discovery.h"
#include "backends/qemu/libvirt_connection.h"

namespace exo::qemu {
namespace {

// type='…' of the <domain> element; libvirt writes it first, with single quotes.
std::string accelerator_of(virDomainPtr domain) {
    const std::unique_ptr<char, decltype(&std::free)> xml{virDomainGetXMLDesc(domain, 0), &std::free};
    if (!xml) return {};
    constexpr std::string_view mark = "<domain type='";
    const std::string_view text = xml.get();
    const auto at = text.find(mark);
    if (at == std::string_view::npos) return {};
    const auto type = text.substr(at + mark.size(), text.find('\'', at + mark.size()) - at - mark.size());
    return type == "qemu" ? "tcg" : std::string{type};
}

GuestSummary summary_of(virDomainPtr domain, const std::string& uri) {
    GuestSummary guest;
    guest.name = virDomainGetName(domain);
    guest.target = "libvirt:" + guest.name;
    virDomainInfo info{};
    if (virDomainGetInfo(domain, &info) == 0) {
        guest.state = state_name(info.state);
        guest.vcpus = info.nrVirtCpu;
    }
    guest.accelerator = accelerator_of(domain);
    if (virDomainIsActive(domain) == 1) guest.pid = libvirt_pid(uri, guest.name);
    return guest;
}

}  // namespace

Result<std::vector<GuestSummary>> list_libvirt(const std::string& connect) {
    const auto connection = TRY(open_connection(connect));
    const auto uri = uri_of(connection.get());
    virDomainPtr* domains = nullptr;
    const int count = virConnectListAllDomains(connection.get(), &domains, 0);
    if (count < 0) return fail(libvirt_error("libvirt at " + uri));
    const std::unique_ptr<virDomainPtr, decltype(&std::free)> owner{domains, &std::free};
    std::vector<GuestSummary> guests;
    for (int i = 0; i < count; ++i) {
        const Domain domain{domains[i]};
        guests.push_back(summary_of(domain.get(), uri));
    }
    return guests;
}

}  // namespace exo::qemu
