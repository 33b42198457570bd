#include "backends/xen/altp2m.h"

#include <algorithm>
#include <utility>

namespace exo::xen {
namespace {

constexpr PhysicalAddress frame_start(std::uint64_t frame) { return PhysicalAddress{frame * page_bytes}; }
constexpr std::uint32_t offset_in_frame(PhysicalAddress place) {
    return static_cast<std::uint32_t>(raw(place) % page_bytes);
}

}  // namespace

Result<void> HiddenPages::enter() {
    if (open()) return {};
    journal_.altp2m = true;
    CHECK_OK(domain_.write_journal(journal_));
    // Another tool's views would be gone with ours.
    journal_.altp2m = !TRY(domain_.enable_views(true));
    bare_ = TRY(add_view());
    const auto view = TRY(add_view());
    CHECK_OK(domain_.switch_to_view(view));
    view_ = view;
    return {};
}

Result<ViewId> HiddenPages::add_view() {
    const auto view = TRY(domain_.create_view());
    journal_.views.push_back(view);
    CHECK_OK(domain_.write_journal(journal_));
    return view;
}

Result<void> HiddenPages::leave() {
    Result<void> result;
    const auto keep = [&](Result<void> next) {
        if (result && !next) result = std::move(next);
    };
    if (!journal_.views.empty()) keep(domain_.switch_to_view(host_view));
    for (const auto view : std::exchange(journal_.views, {})) keep(domain_.destroy_view(view));
    if (std::exchange(journal_.altp2m, false)) {
        auto disabled = domain_.enable_views(false);
        if (!disabled) keep(fail(std::move(disabled).error()));
    }
    view_ = bare_ = host_view;
    for (const auto frame : std::exchange(journal_.pages, {})) keep(domain_.remove_page(frame));
    if (const auto maximum = std::exchange(journal_.maximum, 0); maximum != 0)
        keep(domain_.set_maximum_memory(maximum));
    pages_.clear();
    spare_.clear();
    keep(domain_.write_journal(journal_));
    return result;
}

// A page of the domain's, beyond what it has: that is what a view can show in place of another.
Result<std::uint64_t> HiddenPages::add_copy() {
    if (!spare_.empty()) {
        const auto frame = spare_.back();
        spare_.pop_back();
        return frame;
    }
    const auto limit = TRY(domain_.maximum_memory());
    if (journal_.maximum == 0) journal_.maximum = limit;
    const auto frame = TRY(domain_.free_frame());
    journal_.pages.push_back(frame);
    CHECK_OK(domain_.write_journal(journal_));
    CHECK_OK(domain_.set_maximum_memory(limit + page_bytes / 1024));
    auto added = domain_.add_page(frame);
    if (added) return frame;
    journal_.pages.pop_back();
    static_cast<void>(domain_.set_maximum_memory(limit));
    CHECK_OK(domain_.write_journal(journal_));
    return fail(std::move(added).error());
}

Result<void> HiddenPages::fill(const Page& page) {
    auto bytes = page.original;
    for (const auto offset : page.offsets) bytes.at(offset) = int3;
    return domain_.write_page(page.copy, bytes);
}

Result<void> HiddenPages::insert(PhysicalAddress place) {
    const auto frame = frame_of(place);
    if (const auto found = pages_.find(frame); found != pages_.end()) {
        found->second.offsets.push_back(offset_in_frame(place));
        return fill(found->second);
    }
    CHECK_OK(enter());
    Page page{.original = std::vector<std::byte>(page_bytes), .offsets = {offset_in_frame(place)}};
    CHECK_OK(domain_.memory().read(frame_start(frame), page.original));
    page.copy = TRY(add_copy());
    auto shown = fill(page);
    if (shown) shown = domain_.remap(view_, frame, page.copy);
    if (shown) shown = domain_.set_access(view_, frame, PageAccess::execute);
    if (!shown) {
        static_cast<void>(domain_.remap(view_, frame, std::nullopt));
        spare_.push_back(page.copy);
        return shown;
    }
    pages_.emplace(frame, std::move(page));
    return {};
}

Result<void> HiddenPages::drop(std::uint64_t frame, const Page& page) {
    // Takes the page's own permissions, too.
    CHECK_OK(domain_.remap(view_, frame, std::nullopt));
    spare_.push_back(page.copy);
    return {};
}

Result<void> HiddenPages::remove(PhysicalAddress place) {
    const auto found = pages_.find(frame_of(place));
    if (found == pages_.end()) return {};
    auto& page = found->second;
    const auto offset = std::ranges::find(page.offsets, offset_in_frame(place));
    if (offset == page.offsets.end()) return {};
    page.offsets.erase(offset);
    if (!page.offsets.empty()) return fill(page);
    const auto gone = std::move(page);
    const auto frame = found->first;
    pages_.erase(found);
    return drop(frame, gone);
}

bool HiddenPages::contains(PhysicalAddress place) const {
    const auto found = pages_.find(frame_of(place));
    return found != pages_.end() &&
           std::ranges::find(found->second.offsets, offset_in_frame(place)) != found->second.offsets.end();
}

Result<void> HiddenPages::refresh(std::uint64_t frame) {
    const auto found = pages_.find(frame);
    if (found == pages_.end()) return {};
    std::vector<std::byte> now(page_bytes);
    CHECK_OK(domain_.memory().read(frame_start(frame), now));
    if (now == found->second.original) return {};
    found->second.original = std::move(now);
    return fill(found->second);
}

Result<void> HiddenPages::refresh_all() {
    for (const auto& [frame, page] : pages_) CHECK_OK(refresh(frame));
    return {};
}

}  // namespace exo::xen
