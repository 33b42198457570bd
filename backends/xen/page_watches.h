// Watchpoints by the permissions of pages (mem_access): any length, and reads alone. An access to such a page
// makes an event before it is done; which of them is meant is found out here.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "backends/api/target.h"
#include "backends/xen/event_domain.h"

namespace exo::xen {

class PageWatches {
public:
    // A part of a watched range that is contiguous in guest-physical memory: a page's at most.
    struct Piece {
        PhysicalAddress place{};
        std::uint32_t length = 0;
    };
    struct Watch {
        BreakpointKind kind{};
        VirtualAddress address{};
        std::uint32_t length = 0;
        std::vector<Piece> pieces;
    };

    // What an access may turn out to be, once it is done.
    struct Candidate {
        StopEvent::Cause cause = StopEvent::Cause::none;
        VirtualAddress address{};
        // Nothing: it is a hit. Else it begins before these bytes, and is one if it has changed them: an
        // event tells where an access begins, not how long it is.
        std::optional<Piece> if_changed;
    };

    void insert(Watch watch) { watches_.push_back(std::move(watch)); }
    // The frames of it, which may be watched by others still; nothing if there was none such.
    std::optional<std::vector<std::uint64_t>> remove(BreakpointKind kind, VirtualAddress address,
                                                     std::uint32_t length);
    void clear() { watches_.clear(); }

    [[nodiscard]] bool empty() const { return watches_.empty(); }
    [[nodiscard]] std::vector<std::uint64_t> frames() const;
    // What is left allowed.
    [[nodiscard]] PageAccess access(std::uint64_t frame) const;
    // Hits first.
    [[nodiscard]] std::vector<Candidate> candidates(const VmEvent& event) const;

private:
    std::vector<Watch> watches_;
};

}  // namespace exo::xen
