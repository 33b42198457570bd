#include "stub/clean_memory.h"

#include <algorithm>

namespace exo::stub {

void CleanMemory::clean(PhysicalAddress address, MutableBytes bytes) const {
    for (auto it = hidden_.lower_bound(address);
         it != hidden_.end() && raw(it->first) < raw(address) + bytes.size(); ++it) {
        std::byte& seen = bytes[raw(it->first) - raw(address)];
        // Only where the breakpoint really is: the guest may have written or freed the page since.
        if (seen == int3) seen = it->second.value;
    }
}

Result<std::size_t> CleanMemory::read_some(PhysicalAddress address, MutableBytes out) {
    const std::size_t count = TRY(below_.read_some(address, out));
    clean(address, out.first(count));
    return count;
}

void CleanMemory::read_scattered(std::span<Fragment> fragments) {
    below_.read_scattered(fragments);
    for (const Fragment& fragment : fragments) clean(fragment.address, fragment.out.first(fragment.read));
}

Result<std::size_t> CleanMemory::write_some(PhysicalAddress address, ConstBytes in) {
    const auto first = hidden_.lower_bound(address);
    if (first == hidden_.end() || raw(first->first) >= raw(address) + in.size()) {
        return below_.write_some(address, in);
    }
    if (first->first != address)
        return below_.write_some(address, in.first(raw(first->first) - raw(address)));
    std::byte seen{};
    CHECK_OK(below_.read(address, MutableBytes{&seen, 1}));
    Hidden& hidden = first->second;
    // No breakpoint is in memory here, or an int3 that is the guest's own.
    if (seen != int3 || hidden.value == int3) {
        CHECK_OK(below_.write_some(address, in.first(1)));
        hidden = {in[0]};
        return std::size_t{1};
    }
    hidden = {in[0], true};
    return std::size_t{1};
}

Result<void> CleanMemory::reveal(PhysicalAddress address) {
    const auto it = hidden_.find(address);
    if (it == hidden_.end()) return {};
    const Hidden hidden = it->second;
    hidden_.erase(it);
    return hidden.written ? below_.write(address, ConstBytes{&hidden.value, 1}) : Result<void>{};
}

}  // namespace exo::stub
