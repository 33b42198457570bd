// Guest RAM, straight from QEMU's process.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backends/api/memory.h"
#include "backends/host/vmm_memory.h"
#include "backends/qemu/memory_map.h"
#include "backends/qemu/monitor.h"
#include "backends/qemu/unix_socket.h"

namespace exo::qemu {

// Writes that QEMU itself carries out, so that translated code and the dirty log of a migration hear of them.
class PhysicalWriter {
public:
    virtual ~PhysicalWriter() = default;
    // All of `in`, which lies in RAM.
    virtual Result<void> write_physical(PhysicalAddress address, ConstBytes in) = 0;
};

class GuestMemory final : public PhysicalMemory {
public:
    GuestMemory(Monitor& monitor, const Process& process);
    ~GuestMemory() override;

    // Reads the map anew. Before the first call there is no memory.
    Result<void> load();

    Result<std::size_t> read_some(PhysicalAddress address, MutableBytes out) override;
    void read_scattered(std::span<Fragment> fragments) override;
    Result<std::size_t> write_some(PhysicalAddress address, ConstBytes in) override;
    [[nodiscard]] std::span<const MemoryRegion> regions() const override {
        if (regions_.empty()) return {};
        return regions_.front();
    }

    // Null: write into QEMU's process directly.
    void write_through(PhysicalWriter* writer) { writer_ = writer; }
    // The guest has run: what chipset registers remap may be elsewhere now.
    void guest_ran() { legacy_stale_ = true; }
    // "mmap of a shared file", "process_vm_readv": how the largest range is read.
    [[nodiscard]] std::string access_method() const;

private:
    struct Range : MapRange {
        HostRange bytes;  // host 0 for mmio
    };

    Result<void> refresh(bool trust_known);
    Result<void> find_hosts(std::vector<Range>& ranges, bool trust_known);
    void find_files(std::vector<Range>& ranges);
    // Whether it was done; a failed one counts as not done.
    bool refresh_if_due();
    void refresh_legacy_area(PhysicalAddress address, std::size_t size);
    [[nodiscard]] const Range* find(PhysicalAddress address) const;
    // Where it lies in QEMU's process, if all of it does, in memory that is always what the map says.
    [[nodiscard]] std::optional<std::uint64_t> host_address(PhysicalAddress address, std::size_t size) const;
    Result<std::size_t> write_range(const Range& range, std::uint64_t offset, ConstBytes in);
    [[nodiscard]] Error no_memory_at(PhysicalAddress address) const;

    Monitor& monitor_;
    VmmMemory vmm_;
    PhysicalWriter* writer_ = nullptr;
    std::vector<Range> ranges_;
    // The front is today's. The older ones stay for those who read while they walk regions().
    std::deque<std::vector<MemoryRegion>> regions_;
    mutable std::size_t last_hit_ = 0;
    std::string map_text_;
    bool legacy_stale_ = false;
    Clock::time_point loaded_at_{};
    Clock::duration refresh_interval_{};
};

}  // namespace exo::qemu
