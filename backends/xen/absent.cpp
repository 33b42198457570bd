// In place of all the others where Xen's libraries are absent.
#include "backends/xen/discovery.h"

namespace exo::xen {
namespace {

constexpr const char* without_xen =
    "this exogdb was built without Xen; build it with Xen's libraries (libxen-dev)";

}  // namespace

bool is_built() { return false; }

Result<std::unique_ptr<Target>> open(const std::string& words) {
    return fail(Errc::unsupported, "xen:" + words + ": " + without_xen);
}
Result<RecoverReport> recover(const std::string& words) {
    return fail(Errc::unsupported, "xen:" + words + ": " + without_xen);
}
std::vector<Check> diagnose(const std::string& words) {
    return {{"backend", false, "xen:" + words, without_xen}};
}
Result<std::vector<GuestSummary>> list() { return std::vector<GuestSummary>{}; }
bool has_domain(const std::string&) { return false; }

}  // namespace exo::xen
