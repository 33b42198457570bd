#include "backends/xen/discovery.h"

#include <algorithm>
#include <iterator>

#include "backends/xen/domain.h"
#include "backends/xen/hypervisor.h"
#include "backends/xen/journal.h"
#include "backends/xen/recover.h"
#include "backends/xen/target.h"

namespace exo::xen {
namespace {

Check passed(std::string name, std::string detail) { return {std::move(name), true, std::move(detail), {}}; }

// An error's message is "what: why; what to do".
Check failed(std::string name, const Error& error) {
    const auto semicolon = error.message.find("; ");
    const bool has_remedy = semicolon != std::string::npos;
    return {std::move(name), false, error.message.substr(0, semicolon),
            has_remedy ? error.message.substr(semicolon + 2) : "give another target"};
}

Result<std::shared_ptr<const Hypervisor>> open_hypervisor() { return TRY(Hypervisor::open()); }

bool is_meant(const JournalEntry& entry, const std::string& words) {
    return entry.name == words || std::to_string(entry.domain) == words || entry.target == "xen:" + words;
}

Check check_state(const Domain& domain, const xc_dominfo_t& info) {
    const auto state = state_of(info);
    switch (condition_of(info)) {
        case Condition::gone: return {"state", false, state, "give a guest that runs"};
        case Condition::suspended:
            return {"state", false, "it is being saved or migrated", "try again when that is over"};
        case Condition::crashed: return passed("state", "crashed, and kept by the toolstack");
        case Condition::none: break;
    }
    if (info.paused != 0) return passed("state", "paused: `xl unpause " + domain.name() + "` lets it run");
    return passed("state", state);
}

Check check_journal(const Domain& domain) {
    for (const auto& entry : read_journals()) {
        if (!entry.is_of(domain.id(), domain.uuid())) continue;
        if (entry.owner_alive())
            return {"other exogdb", false, "process " + std::to_string(entry.owner_pid) + " has this guest",
                    "connect to that one, or end it"};
        return {"other exogdb", false, "one was killed and left the guest unclean",
                "run `exogdb recover " + entry.target + "`"};
    }
    return passed("other exogdb", "none");
}

}  // namespace

bool is_built() { return true; }

Result<std::unique_ptr<Target>> open(const std::string& words) {
    return open_domain(TRY(Domain::find(TRY(open_hypervisor()), words)), words);
}

Result<RecoverReport> recover(const std::string& words) {
    RecoverReport report;
    const auto xen = TRY(open_hypervisor());
    for (const auto& entry : read_journals()) {
        if (!is_meant(entry, words)) continue;
        const auto domain = Domain::find(xen, std::to_string(entry.domain));
        if (!domain && domain.error().code != Errc::not_found) return fail(domain.error());
        if (!domain || domain->uuid() != entry.uuid) {
            remove_journal(entry);
            report.actions.push_back("forgot Xen domain " + entry.name + ", which is gone");
            continue;
        }
        if (entry.owner_alive())
            return fail(Errc::busy, "exogdb process " + std::to_string(entry.owner_pid) + " has " +
                                        domain->text() + "; end it first");
        std::ranges::move(TRY(recover_domain(*domain, entry)), std::back_inserter(report.actions));
    }
    return report;
}

std::vector<Check> diagnose(const std::string& words) {
    std::vector<Check> checks;
    const auto xen = open_hypervisor();
    if (!xen) return {failed("hypervisor", xen.error())};
    checks.push_back(passed("hypervisor", "Xen " + (*xen)->version() + ", controlled from here"));
    const auto domain = Domain::find(*xen, words);
    const auto info = domain ? domain->info() : Result<xc_dominfo_t>{fail(domain.error())};
    if (!info) {
        checks.push_back(failed("domain", info.error()));
        return checks;
    }
    checks.push_back(passed("domain", domain->text() + ", " + std::string{kind_of(*info)} + ", " +
                                          std::to_string(info->nr_online_vcpus) + " vCPUs"));
    checks.push_back(check_state(*domain, *info));
    checks.push_back(check_journal(*domain));
    return checks;
}

Result<std::vector<GuestSummary>> list() {
    std::vector<GuestSummary> guests;
    if (!Hypervisor::is_here()) return guests;
    const auto xen = Hypervisor::open();
    // In a guest of Xen there is nothing to list, and nothing wrong.
    if (!xen && !Hypervisor::is_dom0()) return guests;
    if (!xen) return fail(xen.error());
    for (const auto& info : TRY((*xen)->domains())) {
        if (info.domid == dom0) continue;
        const auto number = std::to_string(info.domid);
        const auto name = (*xen)->name_of(info.domid);
        guests.push_back({.target = "xen:" + name.value_or(number),
                          .name = name.value_or(number),
                          .state = state_of(info),
                          .accelerator = "xen",
                          .vcpus = info.nr_online_vcpus});
    }
    return guests;
}

bool has_domain(const std::string& name) {
    const auto is_named = [&](const auto& row) { return row.name == name; };
    if (std::ranges::any_of(read_journals(), is_named)) return true;
    const auto guests = list();
    return guests && std::ranges::any_of(*guests, is_named);
}

}  // namespace exo::xen
