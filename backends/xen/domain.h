// A domain: which one a name means, what state it is in, its pause.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "backends/xen/hypervisor.h"

namespace exo::xen {

// What of a domain stands in the way of a debugger, or ends its session.
enum class Condition : std::uint8_t {
    none,
    gone,  // it is being destroyed, or has powered off or rebooted, after which the toolstack destroys it
    suspended,  // to be saved or migrated: it stands, and somebody copies it
    crashed,    // and is kept, where the toolstack was told so (on_crash="preserve")
};
Condition condition_of(const xc_dominfo_t& info);
// "running", "paused", "blocked", "shut down", "crashed", "dying": Xen's words, as of `xl list`.
std::string state_of(const xc_dominfo_t& info);
// "PV", "PVH", "HVM"
std::string_view kind_of(const xc_dominfo_t& info);

// That a domain stands, but not by a pause of ours: others have paused it, or it has crashed and is kept.
// Before its end it stands, too, for the time that the toolstack takes to take its devices away
// (tools/libs/light, libxl__destroy_domid()).
class StandsByOthers {
public:
    using Clock = std::chrono::steady_clock;
    static constexpr std::chrono::seconds lasting{5};

    // At each look at a domain of which none of the pauses is ours.
    bool lasts(const xc_dominfo_t& info, Clock::time_point now);
    void forget() { since_.reset(); }

private:
    std::optional<Clock::time_point> since_;
};

class Domain {
public:
    // `words`: a number or a name. not_found; bad_request for dom0, in which this runs.
    static Result<Domain> find(std::shared_ptr<const Hypervisor> xen, const std::string& words);

    [[nodiscard]] const Hypervisor& xen() const { return *xen_; }
    [[nodiscard]] DomainId id() const { return id_; }
    [[nodiscard]] const std::string& name() const { return name_; }
    [[nodiscard]] const std::string& uuid() const { return uuid_; }
    [[nodiscard]] std::string text() const {
        return "Xen domain " + name_ + " (" + std::to_string(id_) + ")";
    }

    // target_gone where the number is another domain's by now, too.
    [[nodiscard]] Result<xc_dominfo_t> info() const;
    // They nest. All vCPUs stand when pause() returns (xen/common/domain.c,
    // domain_pause_by_systemcontroller()).
    [[nodiscard]] Result<void> pause() const;
    // Where there is no pause it is done, too.
    [[nodiscard]] Result<void> unpause() const;

private:
    Domain(std::shared_ptr<const Hypervisor> xen, DomainId id, std::string name, std::string uuid)
        : xen_(std::move(xen)), id_(id), name_(std::move(name)), uuid_(std::move(uuid)) {}

    std::shared_ptr<const Hypervisor> xen_;
    DomainId id_;
    std::string name_;
    std::string uuid_;
};

}  // namespace exo::xen
