// Guest RAM of tests: a few regions with holes between them, backed by ordinary memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/memory.h"

namespace exo::test {

class FakeMemory : public PhysicalMemory {
public:
    // `size` bytes of RAM, zeroed, at `start`. Both multiples of 4 KiB; no overlap with another region.
    void add_ram(PhysicalAddress start, std::uint64_t size);

    Result<std::size_t> read_some(PhysicalAddress address, MutableBytes out) override;
    void read_scattered(std::span<Fragment> fragments) override;
    Result<std::size_t> write_some(PhysicalAddress address, ConstBytes in) override;
    [[nodiscard]] std::span<const MemoryRegion> regions() const override { return regions_; }

    // The bytes themselves: [address, address + size) must lie in one region.
    MutableBytes bytes(PhysicalAddress address, std::uint64_t size);

    template <class T>
    void put(PhysicalAddress address, const T& value) {
        const auto from = std::as_bytes(std::span{&value, 1});
        std::ranges::copy(from, bytes(address, from.size()).begin());
    }
    void put_text(PhysicalAddress address, std::string_view text);

    // How often the backend was asked: what a cache in front of it saves.
    [[nodiscard]] std::size_t reads() const { return reads_; }

private:
    std::vector<MemoryRegion> regions_;
    std::map<std::uint64_t, std::vector<std::byte>> content_;  // by start of region
    std::size_t reads_ = 0;

    MutableBytes from(PhysicalAddress address);
};

}  // namespace exo::test
