// Which backend serves which kind of target: one explicit table.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/discovery.h"
#include "backends/api/target.h"
#include "backends/choice.h"

namespace exo {

// "libvirt:debian" as {"libvirt", "debian"}.
struct TargetUri {
    std::string scheme;
    std::string rest;

    bool bare = false;  // a word alone, which may be of another scheme, too: open_target() looks

    // A word without a known scheme's "NAME:" is a libvirt domain, or a Xen domain's name. bad_request, with
    // the list of schemes, for "word:rest" of an unknown scheme, and for an empty rest.
    static Result<TargetUri> parse(std::string_view text);
    [[nodiscard]] std::string text() const { return scheme + ":" + rest; }
};

struct OpenOptions {
    std::string connect;  // libvirt URI, empty for libvirt's default
    BackendWish backend = BackendWish::automatic;
    // Where there is a choice of backends: which was made, and why. One line; may be empty.
    std::function<void(std::string_view)> tell;
};

struct BackendInfo {
    std::string_view scheme;  // "libvirt"
    std::string_view form;    // "libvirt:NAME", for messages and --help
    bool built = true;        // false: its library was absent when this program was built
};
std::vector<BackendInfo> backends();

// Does not stop the guest.
Result<std::unique_ptr<Target>> open_target(const TargetUri& uri, const OpenOptions& options);
// Undoes what a killed exogdb left behind in the guest, whatever backend it used; idempotent.
Result<RecoverReport> recover_target(const TargetUri& uri, const OpenOptions& options);
// What stands in the way of open_target() and of attaching. Never fails: what fails is a check that is not
// ok.
std::vector<Check> diagnose_target(const TargetUri& uri, const OpenOptions& options);
// All guests that the backends can see. A backend that cannot look adds its error to `errors`.
std::vector<GuestSummary> list_targets(const OpenOptions& options, std::vector<Error>& errors);
// A part of that, for the tests: those of `more` that are not in `all` by another name.
void add_guests(std::vector<GuestSummary>& all, std::vector<GuestSummary> more);

}  // namespace exo
