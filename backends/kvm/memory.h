// Guest memory, straight from the monitor's process, by slots that were found from outside.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backends/api/memory.h"
#include "backends/host/vmm_memory.h"
#include "backends/kvm/slots.h"

namespace exo::kvm {

class SlotMemory final : public PhysicalMemory {
public:
    // `monitor` is how messages call it: "firecracker". `process` must outlive this.
    SlotMemory(const Process& process, std::string monitor) : vmm_(process, std::move(monitor)) {}

    // Finds the slots anew; before the first time there is no memory. All vCPUs stand still. Worth it again
    // when there are notes, or after moved(). Slots that are still there stay where less is found than was
    // before: firmware shows little of a guest that has been reset.
    Result<void> load(std::span<const Witness> witnesses);
    // Whether the monitor has mapped or unmapped memory since, such that slots are no longer what they were.
    // Reads /proc/PID/maps.
    [[nodiscard]] bool moved() const;
    // What to do before the next use, once after each call of look_before_use(): a stop that nobody reads
    // memory in costs no search.
    void when_used(std::function<void()> look) { look_ = std::move(look); }
    void look_before_use() { look_due_ = true; }

    Result<std::size_t> read_some(PhysicalAddress address, MutableBytes out) override;
    void read_scattered(std::span<Fragment> fragments) override;
    // Into the monitor's memory; KVM's log of dirty pages, which a migration goes by, does not hear of it.
    Result<std::size_t> write_some(PhysicalAddress address, ConstBytes in) override;
    [[nodiscard]] std::span<const MemoryRegion> regions() const override {
        look_first();
        if (regions_.empty()) return {};
        return regions_.front();
    }

    // Where a byte of RAM lies in the monitor.
    [[nodiscard]] std::optional<std::uint64_t> host_address(PhysicalAddress address) const;

    // As Slots has them; why there is no memory.
    [[nodiscard]] std::span<const std::string> notes() const { return notes_; }
    [[nodiscard]] std::size_t confirmed() const { return confirmed_; }
    // "mmap of a shared memfd", "process_vm_readv": how the largest slot is read.
    [[nodiscard]] std::string access_method() const;

private:
    struct Range {
        MemoryRegion region;
        HostRange bytes;
        Mapping mapping;  // that it began in
    };

    void look_first() const {
        if (std::exchange(look_due_, false) && look_) look_();
    }
    [[nodiscard]] bool moved(std::span<const Mapping> mappings) const;
    void use(Slots slots, std::span<const Mapping> mappings);
    [[nodiscard]] const Range* find(PhysicalAddress address) const;
    [[nodiscard]] Error cannot(std::string_view what, PhysicalAddress address, ssize_t result) const;

    VmmMemory vmm_;
    std::vector<Range> ranges_;
    // The front is today's. The older ones stay for those who read while they walk regions().
    std::deque<std::vector<MemoryRegion>> regions_;
    std::vector<std::string> notes_;
    std::size_t confirmed_ = 0;
    std::function<void()> look_;
    mutable bool look_due_ = false;
};

}  // namespace exo::kvm
