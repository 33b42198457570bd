#include "tests/support/fake_memory.h"

#include <algorithm>
#include <stdexcept>

namespace exo::test {

void FakeMemory::add_ram(PhysicalAddress start, std::uint64_t size) {
    for (const auto& region : regions_) {
        if (raw(start) < region.end() && raw(region.start) < raw(start) + size) {
            throw std::invalid_argument("the test's RAM overlaps at " + hex(start));
        }
    }
    content_.emplace(raw(start), std::vector<std::byte>(size));
    regions_.push_back({start, size, MemoryRegion::Kind::ram, "ram"});
    std::ranges::sort(regions_, {}, &MemoryRegion::start);
}

MutableBytes FakeMemory::from(PhysicalAddress address) {
    auto it = content_.upper_bound(raw(address));
    if (it == content_.begin()) return {};
    --it;
    const std::uint64_t offset = raw(address) - it->first;
    if (offset >= it->second.size()) return {};
    return MutableBytes{it->second}.subspan(offset);
}

MutableBytes FakeMemory::bytes(PhysicalAddress address, std::uint64_t size) {
    const auto all = from(address);
    if (all.size() < size) throw std::out_of_range("test writes outside of its RAM: " + hex(address));
    return all.first(size);
}

void FakeMemory::put_text(PhysicalAddress address, std::string_view text) {
    std::ranges::copy(std::as_bytes(std::span{text}), bytes(address, text.size()).begin());
}

Result<std::size_t> FakeMemory::read_some(PhysicalAddress address, MutableBytes out) {
    if (out.empty()) return 0;
    ++reads_;
    const auto have = from(address);
    if (have.empty()) return fail(Errc::bad_address, hex(address) + " is in no RAM");
    const auto count = std::min(have.size(), out.size());
    std::ranges::copy(have.first(count), out.begin());
    return count;
}

void FakeMemory::read_scattered(std::span<Fragment> fragments) {
    const auto reads = reads_;
    PhysicalMemory::read_scattered(fragments);
    reads_ = reads + 1;
}

Result<std::size_t> FakeMemory::write_some(PhysicalAddress address, ConstBytes in) {
    if (in.empty()) return 0;
    const auto have = from(address);
    if (have.empty()) return fail(Errc::bad_address, hex(address) + " is in no RAM");
    const auto count = std::min(have.size(), in.size());
    std::ranges::copy(in.first(count), have.begin());
    return count;
}

}  // namespace exo::test
