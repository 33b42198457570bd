#include "backends/registry.h"

#include <algorithm>

#include "backends/kvm/target.h"
#include "backends/qemu/discovery.h"

namespace exo {
namespace {

using ListFunction = Result<std::vector<GuestSummary>> (*)(const OpenOptions&);

struct Backend {
    BackendInfo info;
    Result<std::unique_ptr<Target>> (*open)(const TargetUri&, const OpenOptions&);
    Result<RecoverReport> (*recover)(const TargetUri&, const OpenOptions&);
    std::vector<Check> (*diagnose)(const TargetUri&, const OpenOptions&);
    ListFunction list;  // null: it cannot tell
};

qemu::Reach reach(const TargetUri& uri, const OpenOptions& options) {
    return {.libvirt = uri.scheme == "libvirt", .name = uri.rest, .connect = options.connect};
}

Result<std::unique_ptr<Target>> open_qemu(const TargetUri& uri, const OpenOptions& options) {
    return qemu::open(reach(uri, options));
}
Result<RecoverReport> recover_qemu(const TargetUri& uri, const OpenOptions& options) {
    return qemu::recover(reach(uri, options));
}
std::vector<Check> diagnose_qemu(const TargetUri& uri, const OpenOptions& options) {
    return qemu::diagnose(reach(uri, options));
}
Result<std::vector<GuestSummary>> list_libvirt(const OpenOptions& options) {
    return qemu::list_libvirt(options.connect);
}

Result<std::unique_ptr<Target>> open_kvm(const TargetUri& uri, const OpenOptions&) {
    return kvm::open(uri.rest);
}
Result<RecoverReport> recover_kvm(const TargetUri& uri, const OpenOptions&) { return kvm::recover(uri.rest); }
std::vector<Check> diagnose_kvm(const TargetUri& uri, const OpenOptions&) { return kvm::diagnose(uri.rest); }
Result<std::vector<GuestSummary>> list_kvm(const OpenOptions&) { return kvm::list(); }

// The order is that of messages and lists.
const Backend table[] = {
    {{"libvirt", "libvirt:NAME", EXOGDB_WITH_LIBVIRT != 0},
     open_qemu,
     recover_qemu,
     diagnose_qemu,
     list_libvirt},
    {{"qemu", "qemu:QMP_SOCKET"}, open_qemu, recover_qemu, diagnose_qemu, nullptr},
    {{"kvm", "kvm:PID"}, open_kvm, recover_kvm, diagnose_kvm, list_kvm},
};

const Backend* find(std::string_view scheme) {
    const auto row =
        std::ranges::find_if(table, [&](const Backend& backend) { return backend.info.scheme == scheme; });
    return row == std::end(table) ? nullptr : &*row;
}

Result<const Backend*> backend_of(const TargetUri& uri) {
    const auto* backend = find(uri.scheme);
    if (backend == nullptr) return fail(Errc::bad_request, "no backend for " + uri.text());
    if (!backend->info.built)
        return fail(Errc::unsupported,
                    uri.text() + ": this exogdb was built without the library for " + uri.scheme);
    return backend;
}

}  // namespace

Result<TargetUri> TargetUri::parse(std::string_view text) {
    const auto colon = text.find(':');
    TargetUri uri{"libvirt", std::string{text}};
    if (colon != std::string_view::npos)
        uri = {std::string{text.substr(0, colon)}, std::string{text.substr(colon + 1)}};
    if (find(uri.scheme) != nullptr && !uri.rest.empty()) return uri;
    std::string message{"\""};
    message.append(text).append("\" names no target: give the name of a libvirt domain, or one of");
    for (const auto& backend : table) message.append(" ").append(backend.info.form);
    return fail(Errc::bad_request, std::move(message));
}

std::vector<BackendInfo> backends() {
    std::vector<BackendInfo> infos;
    for (const auto& backend : table) infos.push_back(backend.info);
    return infos;
}

Result<std::unique_ptr<Target>> open_target(const TargetUri& uri, const OpenOptions& options) {
    return TRY(backend_of(uri))->open(uri, options);
}

Result<RecoverReport> recover_target(const TargetUri& uri, const OpenOptions& options) {
    return TRY(backend_of(uri))->recover(uri, options);
}

std::vector<Check> diagnose_target(const TargetUri& uri, const OpenOptions& options) {
    const auto backend = backend_of(uri);
    if (backend) return (*backend)->diagnose(uri, options);
    return {{"backend", false, backend.error().message, "give another target, or build with the library"}};
}

std::vector<GuestSummary> list_targets(const OpenOptions& options, std::vector<Error>& errors) {
    std::vector<GuestSummary> all;
    for (const auto& backend : table) {
        if (backend.list == nullptr || !backend.info.built) continue;
        auto some = backend.list(options);
        if (some)
            std::ranges::move(*some, std::back_inserter(all));
        else
            errors.push_back(std::move(some).error());
    }
    return all;
}

}  // namespace exo
