#include "backends/xen/hypervisor.h"

#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace exo::xen {
namespace {

// libxenctrl tells its user's terminal of each failure, if it is given no logger; ours are told as errors.
void ignore_message(xentoollog_logger*, xentoollog_level, int, const char*, const char*, std::va_list) {}
void ignore_progress(xentoollog_logger*, const char*, const char*, int, unsigned long, unsigned long) {}
xentoollog_logger quiet{ignore_message, ignore_progress, nullptr};

std::string first_line_of(const char* path) {
    std::ifstream file{path};
    std::string line;
    std::getline(file, line);
    return line;
}

Error why_not_open(const char* what, int number) {
    const std::string name{what};
    if (!Hypervisor::is_here())
        return {Errc::unsupported,
                "this machine does not run under Xen; run exogdb in the dom0 of the guest's host"};
    if (number == EACCES || number == EPERM)
        return {Errc::denied, name + ": " + std::strerror(number) + "; run exogdb as root"};
    if (number == ENOENT || number == ENODEV || number == ENXIO)
        return {Errc::not_found, name + ": there is no /dev/xen/privcmd; load the kernel module xen-privcmd"};
    return {Errc::backend, name + ": " + std::strerror(number)};
}

constexpr const char* not_dom0 = "this is a guest of Xen, not its dom0; run exogdb in dom0";

}  // namespace

std::string to_text(const xen_domain_handle_t& uuid) {
    std::string text;
    for (std::size_t i = 0; i < sizeof uuid; ++i) {
        std::array<char, 3> digits{};
        std::snprintf(digits.data(), digits.size(), "%02x", uuid[i]);
        text += digits.data();
        if (i == 3 || i == 5 || i == 7 || i == 9) text += '-';
    }
    return text;
}

Error xen_error(std::string_view what, int number, const std::string& version) {
    std::string text{what};
    switch (number) {
        case ESRCH: return {Errc::target_gone, text + ": the domain is gone"};
        case EPERM: return {Errc::denied, text + ": " + not_dom0};
        // do_domctl() refuses so whatever is made for another version of it (xen/common/domctl.c).
        case EACCES:
            return {Errc::unsupported,
                    text + ": Xen " + version +
                        " has another version of its interface than the libxenctrl that this "
                        "exogdb uses; install exogdb and the Xen libraries of the running Xen"};
        case ENOSYS:
        case EOPNOTSUPP: return {Errc::unsupported, text + ": Xen " + version + " cannot do it"};
        default: return {Errc::backend, text + ": " + std::strerror(number)};
    }
}

bool Hypervisor::is_here() {
    std::error_code none;
    // /proc/xen is there, and empty, in a kernel that could run under Xen (CONFIG_XENFS,
    // CONFIG_XEN_COMPAT_XENFS).
    return first_line_of("/sys/hypervisor/type") == "xen" ||
           std::filesystem::exists("/proc/xen/capabilities", none);
}

// Where /proc/xen is mounted it says whether this domain is the one that controls the others; else calls fail
// with EPERM.
bool Hypervisor::is_dom0() {
    std::error_code none;
    return !std::filesystem::exists("/proc/xen/capabilities", none) ||
           first_line_of("/proc/xen/capabilities").find("control_d") != std::string::npos;
}

Result<std::unique_ptr<Hypervisor>> Hypervisor::open() {
    std::unique_ptr<Hypervisor> xen{new Hypervisor};
    xen->control_ = xc_interface_open(&quiet, &quiet, 0);
    if (xen->control_ == nullptr) return fail(why_not_open("Xen's control interface", errno));
    if (!is_dom0()) return fail(Errc::denied, not_dom0);
    xen->foreign_ = xenforeignmemory_open(&quiet, 0);
    if (xen->foreign_ == nullptr) return fail(why_not_open("Xen's foreign memory", errno));
    // Names and sizes are told there alone; all else works without.
    xen->store_ = xs_open(0);
    // The first call that only a dom0 may make, and of libxenctrl's own version of the interface.
    CHECK_OK(xen->domain(dom0));
    return xen;
}

Hypervisor::~Hypervisor() {
    if (store_ != nullptr) xs_close(store_);
    if (foreign_ != nullptr) xenforeignmemory_close(foreign_);
    if (control_ != nullptr) xc_interface_close(control_);
}

std::string Hypervisor::version() const {
    const int number = xc_version(control_, XENVER_version, nullptr);
    if (number < 0) return "of unknown version";
    xen_extraversion_t extra{};
    const bool has_extra = xc_version(control_, XENVER_extraversion, &extra) >= 0;
    extra[sizeof extra - 1] = 0;
    return std::to_string(number >> 16) + "." + std::to_string(number & 0xffff) +
           (has_extra ? std::string{extra} : "");
}

Result<std::vector<xc_dominfo_t>> Hypervisor::domains() const {
    constexpr unsigned batch = 64;
    std::vector<xc_dominfo_t> all;
    for (DomainId next = 0;;) {
        std::vector<xc_dominfo_t> some(batch);
        const int count = xc_domain_getinfo(control_, next, batch, some.data());
        // ESRCH: there is none from `next` on.
        if (count < 0 && errno == ESRCH) return all;
        if (count < 0) return fail(error("the list of Xen's domains", errno));
        some.resize(static_cast<std::size_t>(count));
        all.insert(all.end(), some.begin(), some.end());
        if (some.size() < batch) return all;
        next = some.back().domid + 1;
    }
}

Result<xc_dominfo_t> Hypervisor::domain(DomainId id) const {
    xc_dominfo_t info{};
    const auto what = "Xen domain " + std::to_string(id);
    const int count = xc_domain_getinfo(control_, id, 1, &info);
    if (count < 0) return fail(error(what, errno));
    // It answers with the next one that there is.
    if (count == 0 || info.domid != id) return fail(Errc::target_gone, what + ": the domain is gone");
    return info;
}

std::optional<std::string> Hypervisor::store_value(DomainId id, std::string_view key) const {
    if (store_ == nullptr) return std::nullopt;
    const auto path = "/local/domain/" + std::to_string(id) + "/" + std::string{key};
    unsigned length = 0;
    const std::unique_ptr<void, void (*)(void*)> value{xs_read(store_, XBT_NULL, path.c_str(), &length),
                                                       &std::free};
    if (!value) return std::nullopt;
    return std::string{static_cast<const char*>(value.get()), length};
}

std::optional<std::string> Hypervisor::name_of(DomainId id) const { return store_value(id, "name"); }

}  // namespace exo::xen
