// Permissions, views and pages: of MonitoredDomain.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "backends/xen/monitored_domain.h"

namespace exo::xen {
namespace {

xenmem_access_t access_for(PageAccess access) {
    switch (access) {
        case PageAccess::read_execute: return XENMEM_access_rx;
        case PageAccess::execute: return XENMEM_access_x;
        case PageAccess::read_write: return XENMEM_access_rw;
        case PageAccess::all: break;
    }
    return XENMEM_access_rwx;
}

}  // namespace

Result<void> MonitoredDomain::set_access(ViewId view, std::uint64_t frame, PageAccess access) {
    const auto wanted = access_for(access);
    const int rc = view == host_view ? xc_set_mem_access(control(), id(), wanted, frame, 1)
                                     : xc_altp2m_set_mem_access(control(), id(), view, frame, wanted);
    return check(rc, "permissions of a page");
}

bool MonitoredDomain::has_views() const {
    bool active = false;
    return xc_altp2m_get_domain_state(control(), id(), &active) == 0 && active;
}

Result<bool> MonitoredDomain::enable_views(bool on) {
    const bool before = has_views();
    if (before != on) CHECK_OK(check(xc_altp2m_set_domain_state(control(), id(), on), "altp2m"));
    return before;
}

Result<ViewId> MonitoredDomain::create_view() {
    ViewId view = host_view;
    CHECK_OK(check(xc_altp2m_create_view(control(), id(), XENMEM_access_rwx, &view), "a view"));
    return view;
}

// Those of a domain go with its altp2m.
Result<void> MonitoredDomain::destroy_view(ViewId view) {
    if (!has_views()) return {};
    return check(xc_altp2m_destroy_view(control(), id(), view), "ending a view");
}

Result<void> MonitoredDomain::switch_to_view(ViewId view) {
    if (view == host_view && !has_views()) return {};
    return check(xc_altp2m_switch_to_view(control(), id(), view), "switching to a view");
}

Result<void> MonitoredDomain::remap(ViewId view, std::uint64_t frame, std::optional<std::uint64_t> other) {
    return check(xc_altp2m_change_gfn(control(), id(), view, frame, other.value_or(no_frame)),
                 "a page of a view");
}

Result<std::uint64_t> MonitoredDomain::maximum_memory() {
    return std::uint64_t{TRY(parts_.domain.info()).max_memkb};
}

Result<void> MonitoredDomain::set_maximum_memory(std::uint64_t kib) {
    return check(xc_domain_setmaxmem(control(), id(), kib), "the memory limit");
}

// What a page that was removed leaves is used again: the highest number that the domain ever had stays known
// as such.
Result<std::uint64_t> MonitoredDomain::free_frame() {
    constexpr std::uint64_t most_left = 256;
    xen_pfn_t highest = 0;
    CHECK_OK(check(xc_domain_maximum_gpfn(control(), id(), &highest), "the memory"));
    const auto lowest = highest - std::min<std::uint64_t>(highest, most_left);
    std::uint64_t frame = highest + 1;
    while (frame > lowest && !TRY(is_there(frame - 1))) --frame;
    return frame;
}

Result<bool> MonitoredDomain::is_there(std::uint64_t frame) {
    int error = 0;
    auto* bytes = TRY(parts_.frames.map({&frame, 1}, false, {&error, 1}));
    const Mapped page{parts_.frames, bytes, 1};
    return error == 0;
}

Result<void> MonitoredDomain::add_page(std::uint64_t frame) {
    xen_pfn_t number = frame;
    return check(xc_domain_populate_physmap_exact(control(), id(), 1, 0, 0, &number), "a page more");
}

Result<void> MonitoredDomain::write_page(std::uint64_t frame, ConstBytes content) {
    int error = 0;
    auto* bytes = TRY(parts_.frames.map({&frame, 1}, true, {&error, 1}));
    const Mapped page{parts_.frames, bytes, 1};
    if (error != 0) return fail(parts_.domain.xen().error("a page that was added to " + name(), error));
    std::memcpy(page.data(), content.data(), std::min(content.size(), page.size()));
    return {};
}

Result<void> MonitoredDomain::remove_page(std::uint64_t frame) {
    if (!TRY(is_there(frame))) return {};  // not any more
    xen_pfn_t number = frame;
    return check(xc_domain_decrease_reservation_exact(control(), id(), 1, 0, &number), "a page less");
}

}  // namespace exo::xen
