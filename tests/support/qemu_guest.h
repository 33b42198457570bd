// A guest that QEMU left behind in files: its RAM (memory-backend-file) and what `info registers -a` said.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/memory.h"
#include "backends/api/registers.h"

namespace exo::test {

// The RAM file of a q35 machine, mapped read-only.
class RamFile final : public PhysicalMemory {
public:
    // bad_request if `path` cannot be opened or mapped.
    static Result<std::unique_ptr<RamFile>> open(const std::string& path);
    ~RamFile() override;

    Result<std::size_t> read_some(PhysicalAddress address, MutableBytes out) override;
    Result<std::size_t> write_some(PhysicalAddress address, ConstBytes in) override;
    [[nodiscard]] std::span<const MemoryRegion> regions() const override { return regions_; }

    // Costs of a backend that has to ask the kernel for each read: busy waiting of so long.
    void set_read_cost(double microseconds) { read_cost_ = microseconds; }
    [[nodiscard]] std::size_t reads() const { return reads_; }
    [[nodiscard]] std::uint64_t bytes_read() const { return bytes_read_; }

private:
    RamFile(const std::byte* base, std::uint64_t size);

    const std::byte* base_;
    std::uint64_t size_;
    std::vector<MemoryRegion> regions_;
    double read_cost_ = 0;
    std::size_t reads_ = 0;
    std::uint64_t bytes_read_ = 0;
};

// One RegisterSet a vCPU from the text of HMP's `info registers -a`. What QEMU does not print (the
// inactive GS base) stays unavailable.
std::vector<RegisterSet> parse_info_registers(std::string_view text);

}  // namespace exo::test
