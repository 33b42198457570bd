#include "backends/choice.h"

#include <utility>

namespace exo {
namespace {

BackendChoice stub_because(std::string reason) { return {.kvm = false, .reason = std::move(reason)}; }

// Why KVM's cannot be used, whatever is wished. Two debuggers of one guest would undo each other's
// breakpoints: KVM keeps one set of them for a vCPU.
std::optional<Error> obstacle(const QemuFacts& facts) {
    if (!facts.kvm) return Error{Errc::unsupported, "QEMU runs this guest without KVM"};
    if (facts.stub_in_use) return facts.stub_in_use;
    return facts.untraceable;
}

}  // namespace

std::string BackendChoice::text() const {
    return kvm ? "kvm: " + reason : "qemu (QEMU's own gdb stub), not kvm: " + reason;
}

Result<BackendChoice> choose_backend(BackendWish wish, const QemuFacts& facts) {
    if (wish == BackendWish::qemu) return stub_because("--backend qemu was given");
    if (auto reason = obstacle(facts)) {
        if (wish == BackendWish::kvm) return fail(std::move(*reason).with_context("--backend kvm"));
        return stub_because(std::move(reason->message));
    }
    if (wish == BackendWish::kvm) return BackendChoice{.kvm = true, .reason = "--backend kvm was given"};
    // KVM's can show a guest that its VMM has paused, but neither step it nor let it go on.
    if (!facts.running)
        return stub_because("the guest does not run (" + facts.state + "), and QEMU's stub can let it go on");
    return BackendChoice{.kvm = true, .reason = "QEMU runs this guest with KVM, and can be traced"};
}

BackendChoice fall_back(const Error& failure) { return stub_because(failure.message); }

}  // namespace exo
