#include "backends/xen/page_watches.h"

#include <algorithm>

namespace exo::xen {
namespace {

StopEvent::Cause cause_of(BreakpointKind kind) {
    switch (kind) {
        case BreakpointKind::write_watch: return StopEvent::Cause::write_watch;
        case BreakpointKind::read_watch: return StopEvent::Cause::read_watch;
        default: return StopEvent::Cause::access_watch;
    }
}

std::uint32_t wanted_flags(BreakpointKind kind) {
    switch (kind) {
        case BreakpointKind::write_watch: return MEM_ACCESS_W;
        case BreakpointKind::read_watch: return MEM_ACCESS_R;
        default: return MEM_ACCESS_RW;
    }
}

}  // namespace

std::optional<std::vector<std::uint64_t>> PageWatches::remove(BreakpointKind kind, VirtualAddress address,
                                                              std::uint32_t length) {
    const auto found = std::ranges::find_if(watches_, [&](const Watch& watch) {
        return watch.kind == kind && watch.address == address && watch.length == length;
    });
    if (found == watches_.end()) return std::nullopt;
    std::vector<std::uint64_t> frames;
    for (const auto& piece : found->pieces) frames.push_back(frame_of(piece.place));
    watches_.erase(found);
    return frames;
}

std::vector<std::uint64_t> PageWatches::frames() const {
    std::vector<std::uint64_t> frames;
    for (const auto& watch : watches_)
        for (const auto& piece : watch.pieces) frames.push_back(frame_of(piece.place));
    std::ranges::sort(frames);
    const auto rest = std::ranges::unique(frames);
    frames.erase(rest.begin(), rest.end());
    return frames;
}

PageAccess PageWatches::access(std::uint64_t frame) const {
    auto access = PageAccess::all;
    for (const auto& watch : watches_) {
        const bool here = std::ranges::any_of(
            watch.pieces, [&](const Piece& piece) { return frame_of(piece.place) == frame; });
        if (!here) continue;
        if (watch.kind != BreakpointKind::write_watch) return PageAccess::execute;
        access = PageAccess::read_execute;
    }
    return access;
}

std::vector<PageWatches::Candidate> PageWatches::candidates(const VmEvent& event) const {
    std::vector<Candidate> hits, perhaps;
    const auto& access = event.u.mem_access;
    // A walk of page tables that the page belongs to is the processor's own access, of no instruction.
    if ((access.flags & MEM_ACCESS_FAULT_IN_GPT) != 0) return hits;
    const std::uint64_t begin = access.gfn * page_bytes + access.offset % page_bytes;
    for (const auto& watch : watches_) {
        const bool wanted = (access.flags & wanted_flags(watch.kind)) != 0;
        for (const auto& piece : watch.pieces) {
            const auto start = raw(piece.place);
            const Candidate candidate{cause_of(watch.kind), watch.address, std::nullopt};
            if (begin >= start && begin - start < piece.length && wanted) {
                hits.push_back(candidate);
            } else if (watch.kind != BreakpointKind::read_watch) {
                perhaps.push_back(candidate);
                perhaps.back().if_changed = piece;
            }
        }
    }
    hits.insert(hits.end(), perhaps.begin(), perhaps.end());
    return hits;
}

}  // namespace exo::xen
