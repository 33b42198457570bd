// The hypervisor as a process of dom0 reaches it: Xen's libraries, opened, and what they say when they fail.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/result.h"
#include "backends/xen/headers.h"

namespace exo::xen {

using DomainId = std::uint32_t;
inline constexpr DomainId dom0 = 0;
// Of Xen's 16-byte handle of a domain, as `xl vm-list` writes it. Numbers are given again, this is not.
std::string to_text(const xen_domain_handle_t& uuid);

// What a failed call of libxenctrl means; `number` is its errno, `version` that of the running Xen.
Error xen_error(std::string_view what, int number, const std::string& version);

class Hypervisor {
public:
    // denied, not_found or unsupported: why not, and what to do. One line.
    static Result<std::unique_ptr<Hypervisor>> open();
    // Whether this machine runs under Xen, by what its kernel says; whether it may control it is another
    // thing.
    static bool is_here();
    // As far as the kernel says: without /proc/xen it may be.
    static bool is_dom0();
    // "4.17.5"; what libxenctrl was made for is in the name of the library.
    [[nodiscard]] std::string version() const;

    Hypervisor(const Hypervisor&) = delete;
    Hypervisor& operator=(const Hypervisor&) = delete;
    ~Hypervisor();

    [[nodiscard]] xc_interface* control() const { return control_; }
    [[nodiscard]] xenforeignmemory_handle* foreign() const { return foreign_; }

    // All of them, dom0 too.
    [[nodiscard]] Result<std::vector<xc_dominfo_t>> domains() const;
    // target_gone: there is none of that number (any more).
    [[nodiscard]] Result<xc_dominfo_t> domain(DomainId id) const;
    // Nothing where the toolstack does not tell, or xenstored does not run.
    [[nodiscard]] std::optional<std::string> name_of(DomainId id) const;
    // A key of /local/domain/ID.
    [[nodiscard]] std::optional<std::string> store_value(DomainId id, std::string_view key) const;

    [[nodiscard]] Error error(std::string_view what, int number) const {
        return xen_error(what, number, version());
    }

private:
    Hypervisor() = default;

    xc_interface* control_ = nullptr;
    xenforeignmemory_handle* foreign_ = nullptr;
    xs_handle* store_ = nullptr;
};

}  // namespace exo::xen
