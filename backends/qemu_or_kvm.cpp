#include "backends/qemu_or_kvm.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "backends/kvm/target.h"
#include "backends/kvm/vm.h"
#include "backends/qemu/discovery.h"

namespace exo::qemu_or_kvm {
namespace {

qemu::Reach reach_of(const TargetUri& uri, const OpenOptions& options) {
    return {.libvirt = uri.scheme == "libvirt", .name = uri.rest, .connect = options.connect};
}

// What a user gives to `exogdb recover`. KVM's journals keep it, so that they are found again by it.
std::string words_of(const TargetUri& uri, const OpenOptions& options) {
    return uri.text() + (options.connect.empty() ? "" : " --connect " + options.connect);
}

std::string name_of(const qemu::Guest& guest) { return std::to_string(guest.process.pid()); }

QemuFacts facts_of(const qemu::Guest& guest) {
    QemuFacts facts{.kvm = guest.kvm, .running = guest.state.running, .state = guest.state.name};
    if (!guest.kvm) return facts;
    facts.stub_in_use = qemu::stub_in_use(guest);
    if (auto traced = kvm::may_trace(name_of(guest)); !traced) facts.untraceable = std::move(traced).error();
    return facts;
}

Result<BackendChoice> choose(const qemu::Guest& guest, BackendWish wish) {
    // QEMU's stub and nothing else: nothing else is looked at.
    return choose_backend(wish, wish == BackendWish::qemu ? QemuFacts{} : facts_of(guest));
}

void append(RecoverReport& to, RecoverReport&& more) {
    std::ranges::move(more.actions, std::back_inserter(to.actions));
}

}  // namespace

Result<std::unique_ptr<Target>> open(const TargetUri& uri, const OpenOptions& options) {
    const auto words = words_of(uri, options);
    CHECK_OK(kvm::recover_target(words));
    auto guest = TRY(qemu::find(reach_of(uri, options)));
    const auto name = name_of(guest);
    CHECK_OK(kvm::recover(name));  // opened as kvm:PID
    // Else KVM's would take QEMU's breakpoints for the guest's own. What stays is told by stub_in_use().
    if (guest.kvm && options.backend != BackendWish::qemu && qemu::recover_stale(guest))
        guest.state = TRY(qemu::query_run_state(*guest.monitor));
    auto choice = TRY(choose(guest, options.backend));
    const auto say = [&] {
        if (options.tell) options.tell(uri.text() + ": backend " + choice.text());
    };
    if (choice.kvm) {
        const auto memory = options.backend == BackendWish::kvm ? kvm::Memory::may_come : kvm::Memory::needed;
        auto target = kvm::open(name, words, memory);
        // What it could not give back is in its journal still: that guest is nobody else's.
        const bool ours = target || options.backend == BackendWish::kvm || kvm::is_in_journal(name);
        if (!ours) choice = fall_back(target.error());
        if (target) say();
        if (ours) return target;
    }
    say();
    return qemu::open(std::move(guest));
}

Result<RecoverReport> recover(const TargetUri& uri, const OpenOptions& options) {
    const auto reach = reach_of(uri, options);
    auto report = TRY(kvm::recover_target(words_of(uri, options)));
    if (kvm::any_left_behind()) {  // perhaps of this guest, opened as kvm:PID
        const auto guest = qemu::find(reach);
        if (!guest && guest.error().code != Errc::not_found) return fail(guest.error());
        if (guest) append(report, TRY(kvm::recover(name_of(*guest))));
    }
    append(report, TRY(qemu::recover(reach)));
    return report;
}

std::vector<Check> diagnose(const TargetUri& uri, const OpenOptions& options) {
    auto [checks, guest] = qemu::diagnose(reach_of(uri, options));
    if (!guest) return std::move(checks);
    const auto choice = choose(*guest, options.backend);
    if (choice)
        checks.push_back({"backend", true, choice->text(), {}});
    else
        checks.push_back({"backend", false, choice.error().message, "leave --backend out"});
    const bool kvm = choice ? choice->kvm : options.backend == BackendWish::kvm;
    std::ranges::move(kvm ? kvm::diagnose(name_of(*guest)) : qemu::diagnose_stub(*guest),
                      std::back_inserter(checks));
    return std::move(checks);
}

Result<std::unique_ptr<Target>> open_process(const TargetUri& uri, const OpenOptions&) {
    const auto name = TRY(kvm::VmName::parse(uri.rest));
    CHECK_OK(qemu::recover_process(name.pid));
    return kvm::open(uri.rest, uri.text(), kvm::Memory::may_come);
}

Result<RecoverReport> recover_process(const TargetUri& uri, const OpenOptions&) {
    const auto name = TRY(kvm::VmName::parse(uri.rest));
    auto report = TRY(kvm::recover(uri.rest));
    append(report, TRY(qemu::recover_process(name.pid)));
    return report;
}

}  // namespace exo::qemu_or_kvm
