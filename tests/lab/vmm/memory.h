// A guest's RAM: one memory slot below the hole under 4 GiB, and one from 4 GiB on when it does not fit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/lab/vmm/options.h"

namespace vmm {

constexpr uint64_t mib = 1 << 20;
constexpr uint64_t high_memory = uint64_t{4} << 30;  // guest-physical: the end of the hole
constexpr uint64_t most_low_memory = uint64_t{3} << 30;

struct MemorySlot {
    uint64_t guest = 0;  // guest-physical address
    uint64_t size = 0;   // bytes
    uint8_t* host = nullptr;
};

class GuestMemory {
public:
    // Maps the RAM in the host as the options say, and gives it to the virtual machine `vm_fd`.
    GuestMemory(int vm_fd, const MachineOptions& options);
    GuestMemory(const GuestMemory&) = delete;
    GuestMemory& operator=(const GuestMemory&) = delete;

    // Where [address, address + size) lies in the host; it must lie in one slot.
    uint8_t* at(uint64_t address, uint64_t size) const;
    void write(uint64_t address, const void* bytes, size_t size) const;

    uint64_t low_size() const { return slots_.front().size; }
    const std::vector<MemorySlot>& slots() const { return slots_; }

private:
    std::vector<MemorySlot> slots_;
};

// The whole file. Ends the process when it cannot be read.
std::vector<uint8_t> read_whole_file(const std::string& path);

}  // namespace vmm
