#include "stub/clean_memory.h"

#include <algorithm>

namespace exo::stub {

Result<std::size_t> CleanMemory::read_some(PhysicalAddress address, MutableBytes out) {
    const std::size_t count = TRY(below_.read_some(address, out));
    for (auto it = hidden_.lower_bound(address); it != hidden_.end() && raw(it->first) < raw(address) + count;
         ++it) {
        std::byte& seen = out[raw(it->first) - raw(address)];
        // Only where the breakpoint really is: the guest may have written or freed the page since.
        if (seen == int3) seen = it->second;
    }
    return count;
}

Result<std::size_t> CleanMemory::write_some(PhysicalAddress address, ConstBytes in) {
    const auto first = hidden_.lower_bound(address);
    if (first == hidden_.end() || raw(first->first) >= raw(address) + in.size()) {
        return below_.write_some(address, in);
    }
    if (first->first != address) return below_.write_some(address, in.first(raw(first->first) - raw(address)));
    // On a breakpoint: what is hidden changes, and the guest's byte with it where there is no int3.
    std::byte seen{};
    CHECK_OK(below_.read(address, MutableBytes{&seen, 1}));
    if (seen == first->second) return below_.write_some(address, in.first(1)).map([&](std::size_t n) {
        first->second = in[0];
        return n;
    });
    first->second = in[0];
    return std::size_t{1};
}

}  // namespace exo::stub
