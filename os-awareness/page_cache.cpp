#include "os-awareness/page_cache.h"

#include <algorithm>
#include <iterator>

namespace exo::os {

PageCache::PageCache(PhysicalMemory& memory, std::size_t pages)
    : memory_(&memory), limit_(std::max<std::size_t>(pages, 1)) {}

void PageCache::invalidate() {
    by_number_.clear();
    spare_.splice(spare_.end(), pages_);
}

Result<const PageCache::Page*> PageCache::page(std::uint64_t number) {
    if (const auto it = by_number_.find(number); it != by_number_.end()) {
        pages_.splice(pages_.begin(), pages_, it->second);
        return &pages_.front();
    }
    if (pages_.size() == limit_) {
        by_number_.erase(pages_.back().number);
        spare_.splice(spare_.begin(), pages_, std::prev(pages_.end()));
    }
    if (spare_.empty()) spare_.emplace_front();
    Page& fresh = spare_.front();
    fresh.number = number;
    fresh.bytes.resize(page_bytes);
    fresh.bytes.resize(TRY(memory_->read_some(PhysicalAddress{number * page_bytes}, fresh.bytes)));
    pages_.splice(pages_.begin(), spare_, spare_.begin());
    by_number_.emplace(number, pages_.begin());
    return &pages_.front();
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
    for (std::uint64_t number = raw(address) / page_bytes; number <= last; ++number) {
        const auto it = by_number_.find(number);
        if (it == by_number_.end()) continue;
        spare_.splice(spare_.begin(), pages_, it->second);
        by_number_.erase(it);
    }
    return count;
}

}  // namespace exo::os
