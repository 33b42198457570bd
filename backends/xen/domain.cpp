#include "backends/xen/domain.h"

#include <cerrno>
#include <charconv>

namespace exo::xen {
namespace {

std::optional<DomainId> number_in(std::string_view words) {
    DomainId id = 0;
    const auto [end, error] = std::from_chars(words.data(), words.data() + words.size(), id);
    if (error != std::errc{} || end != words.data() + words.size()) return std::nullopt;
    return id;
}

}  // namespace

Condition condition_of(const xc_dominfo_t& info) {
    if (info.dying != 0) return Condition::gone;
    if (info.shutdown == 0) return Condition::none;
    switch (info.shutdown_reason) {
        case SHUTDOWN_suspend: return Condition::suspended;
        case SHUTDOWN_crash:
        case SHUTDOWN_watchdog: return Condition::crashed;
        default: return Condition::gone;
    }
}

std::string state_of(const xc_dominfo_t& info) {
    if (info.dying != 0) return "dying";
    switch (condition_of(info)) {
        case Condition::crashed: return "crashed";
        case Condition::suspended: return "suspended";
        case Condition::gone: return "shut down";
        case Condition::none: break;
    }
    if (info.paused != 0) return "paused";
    return info.running != 0 || info.blocked == 0 ? "running" : "blocked";
}

std::string_view kind_of(const xc_dominfo_t& info) {
    if (info.hvm == 0) return "PV";
    // A PVH guest has an emulated interrupt controller and nothing else (tools/libs/light, libxl_create.c).
    return (info.arch_config.emulation_flags & ~XEN_X86_EMU_LAPIC) == 0 ? "PVH" : "HVM";
}

bool StandsByOthers::lasts(const xc_dominfo_t& info, Clock::time_point now) {
    const auto condition = condition_of(info);
    const bool stands = condition == Condition::crashed || (info.paused != 0 && condition == Condition::none);
    if (!stands)
        since_.reset();
    else if (!since_)
        since_ = now;
    return stands && now - *since_ >= lasting;
}

Result<Domain> Domain::find(std::shared_ptr<const Hypervisor> xen, const std::string& words) {
    const auto number = number_in(words);
    for (const auto& info : TRY(xen->domains())) {
        auto name = xen->name_of(info.domid);
        if (number ? info.domid != *number : name != words) continue;
        if (info.domid == dom0)
            return fail(Errc::bad_request,
                        "xen:" + words + " is dom0, in which exogdb runs itself; give a guest");
        auto uuid = to_text(info.handle);
        const auto id = info.domid;
        return Domain{std::move(xen), id, std::move(name).value_or("without a name"), std::move(uuid)};
    }
    return fail(Errc::not_found, "no Xen domain " + words + "; `exogdb list` shows those that there are");
}

Result<xc_dominfo_t> Domain::info() const {
    auto info = TRY(xen_->domain(id_));
    if (to_text(info.handle) != uuid_) return fail(Errc::target_gone, text() + ": the domain is gone");
    return info;
}

Result<void> Domain::pause() const {
    if (xc_domain_pause(xen_->control(), id_) == 0) return {};
    return fail(xen_->error("pausing " + text(), errno));
}

Result<void> Domain::unpause() const {
    if (xc_domain_unpause(xen_->control(), id_) == 0 || errno == EINVAL) return {};
    return fail(xen_->error("unpausing " + text(), errno));
}

}  // namespace exo::xen
