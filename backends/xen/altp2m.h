// Breakpoints that the guest cannot find: altp2m gives its vCPUs another view of its memory, in which a page
// of code is a copy with the int3 in it. The copy can be executed only; what reads or writes the page makes
// an event, and is let do it in the domain's own view.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "backends/xen/event_domain.h"

namespace exo::xen {

inline constexpr std::byte int3{0xcc};

class HiddenPages {
public:
    // Both outlive this. `journal` is written before each thing that has to be undone.
    HiddenPages(EventDomain& domain, MonitorJournal& journal) : domain_(domain), journal_(journal) {}

    [[nodiscard]] bool open() const { return view_ != host_view; }
    // The one that vCPUs are to run in.
    [[nodiscard]] ViewId view() const { return view_; }
    // The same without the copies, for one that steps past an int3.
    [[nodiscard]] ViewId bare_view() const { return bare_; }

    // All vCPUs run in a view of their own from now on. Idempotent.
    Result<void> enter();
    // The domain's memory and its limit are as before. Usable half-way.
    Result<void> leave();

    // Guest stopped. Several may be in a page.
    Result<void> insert(PhysicalAddress place);
    Result<void> remove(PhysicalAddress place);
    [[nodiscard]] bool contains(PhysicalAddress place) const;
    // Whether that page is a copy, so that no more than execution is allowed.
    [[nodiscard]] bool covers(std::uint64_t frame) const { return pages_.contains(frame); }
    // After the page may have been written: the copy is what it is now.
    Result<void> refresh(std::uint64_t frame);
    // Of all pages that differ.
    Result<void> refresh_all();

private:
    struct Page {
        std::uint64_t copy = 0;  // its frame
        std::vector<std::byte> original;
        std::vector<std::uint32_t> offsets;  // of the int3s
    };
    Result<std::uint64_t> add_copy();
    Result<void> drop(std::uint64_t frame, const Page& page);
    Result<void> fill(const Page& page);
    Result<ViewId> add_view();

    EventDomain& domain_;
    MonitorJournal& journal_;
    ViewId view_ = host_view, bare_ = host_view;
    std::map<std::uint64_t, Page> pages_;  // by frame
    std::vector<std::uint64_t> spare_;     // copies of which there is no more need
};

}  // namespace exo::xen
