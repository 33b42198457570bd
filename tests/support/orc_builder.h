// ORC tables and kernel memory of tests: one stretch of memory at a kernel address, and tables written into
// it.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "os-awareness/linux/orc.h"
#include "tests/support/fake_memory.h"

namespace exo::test {

// `size` bytes from `start` on, mapped to physical 0.
class FlatSpace final : public AddressSpace {
public:
    FlatSpace(VirtualAddress start, std::uint64_t size) : start_(start), size_(size) {
        memory_.add_ram(PhysicalAddress{0}, size);
    }
    Result<Translation> translate(VirtualAddress a) override {
        if (a < start_ || raw(a) - raw(start_) >= size_) return fail(Errc::bad_address, hex(a));
        return Translation{.physical = PhysicalAddress{raw(a) - raw(start_)}, .page_size = 4096};
    }
    PhysicalMemory& physical() override { return memory_; }

    template <class T>
    void put(VirtualAddress a, const T& value) {
        memory_.put(PhysicalAddress{raw(a) - raw(start_)}, value);
    }
    std::optional<std::uint64_t> word(std::uint64_t address) {
        const auto value = read_value<std::uint64_t>(VirtualAddress{address});
        return value ? std::optional{*value} : std::nullopt;
    }

private:
    VirtualAddress start_;
    std::uint64_t size_;
    FakeMemory memory_;
};

// As objtool writes it, in any layout.
struct OrcSource {
    std::uint64_t address = 0;
    std::int16_t sp_offset = 0, bp_offset = 0;
    std::uint16_t flags = 0;
};

// At `place`; the entries follow the addresses.
inline os::OrcLocation write_orc(FlatSpace& space, VirtualAddress place, const std::vector<OrcSource>& rows) {
    const os::OrcLocation location{place, place + rows.size() * 4, rows.size()};
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const auto ip = location.ips + i * 4;
        const auto entry = location.entries + i * os::OrcTable::entry_bytes;
        space.put(ip, static_cast<std::int32_t>(rows[i].address - raw(ip)));
        space.put(entry, rows[i].sp_offset);
        space.put(entry + 2, rows[i].bp_offset);
        space.put(entry + 4, rows[i].flags);
    }
    return location;
}

inline void add_orc_symbols(os::SymbolTable& symbols, const os::OrcLocation& location) {
    symbols.add(location.ips, 'r', "__start_orc_unwind_ip");
    symbols.add(location.ips + location.count * 4, 'r', "__stop_orc_unwind_ip");
    symbols.add(location.entries, 'r', "__start_orc_unwind");
    symbols.add(location.entries + location.count * os::OrcTable::entry_bytes, 'r', "__stop_orc_unwind");
}

}  // namespace exo::test
