#include "os-awareness/page_cache.h"

#include <algorithm>
#include <iterator>

namespace exo::os {
namespace {

// 1 MiB; a look at a thousand tasks needs some six hundred.
constexpr std::size_t most_expected = 1024;

}  // namespace

PageCache::PageCache(PhysicalMemory& memory, std::size_t pages)
    : memory_(&memory), limit_(std::max<std::size_t>(pages, 1)) {}

// What was asked for before a stop that nothing was read in is still what the next one is expected to want.
void PageCache::invalidate() {
    by_number_.clear();
    if (!pages_.empty()) expected_.clear();
    const std::size_t most = std::min(most_expected, limit_);
    for (const Page& page : pages_) {
        if (page.asked_for && expected_.size() < most) expected_.push_back(page.number);
    }
    spare_.splice(spare_.end(), pages_);
}

// A page to be filled, the most recently used one now.
PageCache::Page& PageCache::keep(std::uint64_t number) {
    if (pages_.size() == limit_) {
        by_number_.erase(pages_.back().number);
        spare_.splice(spare_.begin(), pages_, std::prev(pages_.end()));
    }
    if (spare_.empty()) spare_.emplace_front();
    spare_.front().number = number;
    spare_.front().asked_for = false;
    pages_.splice(pages_.begin(), spare_, spare_.begin());
    by_number_.emplace(number, pages_.begin());
    return pages_.front();
}

void PageCache::drop(std::uint64_t number) {
    const auto it = by_number_.find(number);
    if (it == by_number_.end()) return;
    spare_.splice(spare_.begin(), pages_, it->second);
    by_number_.erase(it);
}

// Pages that are not there any more are not kept: who asks for them gets memory's own answer.
void PageCache::read_expected() {
    std::vector<Fragment> fragments;
    fragments.reserve(expected_.size());
    for (const auto number : expected_) {
        Page& page = keep(number);
        page.bytes.resize(page_bytes);
        fragments.push_back({PhysicalAddress{number * page_bytes}, page.bytes});
    }
    memory_->read_scattered(fragments);
    for (std::size_t i = 0; i < fragments.size(); ++i) {
        by_number_.at(expected_[i])->bytes.resize(fragments[i].read);
        if (fragments[i].read == 0) drop(expected_[i]);
    }
    expected_.clear();
}

Result<const PageCache::Page*> PageCache::page(std::uint64_t number) {
    if (!expected_.empty()) read_expected();
    if (const auto it = by_number_.find(number); it != by_number_.end()) {
        pages_.splice(pages_.begin(), pages_, it->second);
        pages_.front().asked_for = true;
        return &pages_.front();
    }
    Page& fresh = keep(number);
    fresh.asked_for = true;
    fresh.bytes.resize(page_bytes);
    const auto count = memory_->read_some(PhysicalAddress{number * page_bytes}, fresh.bytes);
    if (!count) {
        drop(number);
        return fail(count.error());
    }
    fresh.bytes.resize(*count);
    return &fresh;
}

Result<std::size_t> PageCache::read_some(PhysicalAddress address, MutableBytes out) {
    if (out.size() >= bulk) return memory_->read_some(address, out);
    std::size_t done = 0;
    while (done < out.size()) {
        const PhysicalAddress at = address + done;
        const std::size_t offset = raw(at) % page_bytes;
        auto found = page(raw(at) / page_bytes);
        if (!found || (*found)->bytes.size() <= offset) {
            if (done > 0) break;
            // Memory that begins or ends inside a page: the backend knows.
            return memory_->read_some(address, out);
        }
        const auto have = ConstBytes{(*found)->bytes}.subspan(offset);
        const std::size_t count = std::min(have.size(), out.size() - done);
        std::copy_n(have.begin(), count, out.begin() + static_cast<std::ptrdiff_t>(done));
        done += count;
    }
    return done;
}

Result<std::size_t> PageCache::write_some(PhysicalAddress address, ConstBytes in) {
    auto count = memory_->write_some(address, in);
    if (in.empty()) return count;
    // Also after a failure: a part may have been written.
    const std::uint64_t last = (raw(address) + in.size() - 1) / page_bytes;
    for (std::uint64_t number = raw(address) / page_bytes; number <= last; ++number) drop(number);
    return count;
}

}  // namespace exo::os
