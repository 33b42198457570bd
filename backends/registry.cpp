#include "backends/registry.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "backends/kvm/target.h"
#include "backends/qemu/discovery.h"
#include "backends/qemu_or_kvm.h"
#include "backends/xen/discovery.h"

namespace exo {
namespace {

using ListFunction = Result<std::vector<GuestSummary>> (*)(const OpenOptions&);

struct Backend {
    BackendInfo info;
    BackendWish only;  // what --backend may say; automatic: anything
    Result<std::unique_ptr<Target>> (*open)(const TargetUri&, const OpenOptions&);
    Result<RecoverReport> (*recover)(const TargetUri&, const OpenOptions&);
    std::vector<Check> (*diagnose)(const TargetUri&, const OpenOptions&);
    ListFunction list;  // null: it cannot tell
};

Result<std::vector<GuestSummary>> list_libvirt(const OpenOptions& options) {
    return qemu::list_libvirt(options.connect);
}

std::vector<Check> diagnose_kvm(const TargetUri& uri, const OpenOptions&) { return kvm::diagnose(uri.rest); }
Result<std::vector<GuestSummary>> list_kvm(const OpenOptions&) { return kvm::list(); }

Result<std::unique_ptr<Target>> open_xen(const TargetUri& uri, const OpenOptions&) {
    return xen::open(uri.rest);
}
Result<RecoverReport> recover_xen(const TargetUri& uri, const OpenOptions&) { return xen::recover(uri.rest); }
std::vector<Check> diagnose_xen(const TargetUri& uri, const OpenOptions&) { return xen::diagnose(uri.rest); }
Result<std::vector<GuestSummary>> list_xen(const OpenOptions&) { return xen::list(); }

// The order is that of messages and lists.
const Backend table[] = {
    {{"libvirt", "libvirt:NAME", EXOGDB_WITH_LIBVIRT != 0},
     BackendWish::automatic,
     qemu_or_kvm::open,
     qemu_or_kvm::recover,
     qemu_or_kvm::diagnose,
     list_libvirt},
    {{"qemu", "qemu:QMP_SOCKET"},
     BackendWish::automatic,
     qemu_or_kvm::open,
     qemu_or_kvm::recover,
     qemu_or_kvm::diagnose,
     nullptr},
    {{"kvm", "kvm:PID"},
     BackendWish::kvm,
     qemu_or_kvm::open_process,
     qemu_or_kvm::recover_process,
     diagnose_kvm,
     list_kvm},
    {{"xen", "xen:DOMID|NAME", xen::is_built()},
     BackendWish::automatic,
     open_xen,
     recover_xen,
     diagnose_xen,
     list_xen},
};

const Backend* find(std::string_view scheme) {
    const auto row =
        std::ranges::find_if(table, [&](const Backend& backend) { return backend.info.scheme == scheme; });
    return row == std::end(table) ? nullptr : &*row;
}

// libvirt's domains come first; the same name in both would be that of a Xen domain which libvirt manages.
TargetUri resolve(const TargetUri& uri, const OpenOptions& options) {
    if (!uri.bare || !xen::is_built() || !xen::has_domain(uri.rest)) return uri;
    const auto names = EXOGDB_WITH_LIBVIRT != 0 ? list_libvirt(options) : std::vector<GuestSummary>{};
    const bool in_libvirt = names && std::ranges::any_of(*names, [&](const GuestSummary& guest) {
                                return guest.name == uri.rest;
                            });
    return in_libvirt ? uri : TargetUri{"xen", uri.rest};
}

Result<const Backend*> backend_of(const TargetUri& uri, const OpenOptions& options) {
    const auto* backend = find(uri.scheme);
    if (backend == nullptr) return fail(Errc::bad_request, "no backend for " + uri.text());
    if (!backend->info.built)
        return fail(Errc::unsupported,
                    uri.text() + ": this exogdb was built without the library for " + uri.scheme);
    const bool fits = backend->only == BackendWish::automatic || options.backend == BackendWish::automatic ||
                      backend->only == options.backend;
    if (!fits)
        return fail(Errc::bad_request,
                    uri.text() + " has no other backend than " + uri.scheme + "; leave --backend out");
    return backend;
}

}  // namespace

Result<TargetUri> TargetUri::parse(std::string_view text) {
    const auto colon = text.find(':');
    TargetUri uri{"libvirt", std::string{text}, true};
    if (colon != std::string_view::npos)
        uri = {std::string{text.substr(0, colon)}, std::string{text.substr(colon + 1)}, false};
    if (find(uri.scheme) != nullptr && !uri.rest.empty()) return uri;
    std::string message{"\""};
    message.append(text).append(
        "\" names no target: give the name of a libvirt domain or of a Xen domain, or one of");
    for (const auto& backend : table) message.append(" ").append(backend.info.form);
    return fail(Errc::bad_request, std::move(message));
}

std::vector<BackendInfo> backends() {
    std::vector<BackendInfo> infos;
    for (const auto& backend : table) infos.push_back(backend.info);
    return infos;
}

Result<std::unique_ptr<Target>> open_target(const TargetUri& uri, const OpenOptions& options) {
    const auto meant = resolve(uri, options);
    return TRY(backend_of(meant, options))->open(meant, options);
}

Result<RecoverReport> recover_target(const TargetUri& uri, const OpenOptions& options) {
    const auto meant = resolve(uri, options);
    return TRY(backend_of(meant, options))->recover(meant, options);
}

std::vector<Check> diagnose_target(const TargetUri& uri, const OpenOptions& options) {
    const auto meant = resolve(uri, options);
    const auto backend = backend_of(meant, options);
    if (backend) return (*backend)->diagnose(meant, options);
    return {{"backend", false, backend.error().message, "give another target, or build with the library"}};
}

std::vector<GuestSummary> list_targets(const OpenOptions& options, std::vector<Error>& errors) {
    std::vector<GuestSummary> all;
    for (const auto& backend : table) {
        if (backend.list == nullptr || !backend.info.built) continue;
        auto some = backend.list(options);
        if (some)
            add_guests(all, *std::move(some));
        else
            errors.push_back(std::move(some).error());
    }
    return all;
}

// libvirt knows a guest of KVM by its name, KVM by its VMM's process.
void add_guests(std::vector<GuestSummary>& all, std::vector<GuestSummary> more) {
    std::erase_if(more, [&](const GuestSummary& guest) {
        return guest.pid &&
               std::ranges::any_of(all, [&](const GuestSummary& told) { return told.pid == guest.pid; });
    });
    std::ranges::move(more, std::back_inserter(all));
}

}  // namespace exo
