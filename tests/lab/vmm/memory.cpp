#include "tests/lab/vmm/memory.h"

#include <linux/kvm.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>

#include "tests/lab/vmm/fail.h"

namespace vmm {
namespace {

constexpr uint64_t large_page = 2 * mib;

uint8_t* map_memory(uint64_t size, MemoryKind kind) {
    int fd = -1, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (kind != MemoryKind::anonymous) {
        fd = memfd_create("ram", MFD_CLOEXEC | (kind == MemoryKind::hugetlb ? MFD_HUGETLB : 0U));
        if (fd < 0 || ftruncate(fd, static_cast<off_t>(size)) < 0) fail_errno("memory in a memfd");
        flags = MAP_SHARED;
    }
    // On a large page, and in large pages where the host has them: a fault for each small one is slow in a
    // nested host.
    void* space =
        mmap(nullptr, size + large_page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (space == MAP_FAILED) fail_errno("address space for the guest's memory");
    uint64_t aligned = (reinterpret_cast<uint64_t>(space) + large_page - 1) & ~(large_page - 1);
    void* memory =
        mmap(reinterpret_cast<void*>(aligned), size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
    if (memory == MAP_FAILED) fail_errno("memory for the guest");
    madvise(memory, size, MADV_HUGEPAGE);
    if (fd >= 0) close(fd);  // the mapping keeps it
    return static_cast<uint8_t*>(memory);
}

}  // namespace

GuestMemory::GuestMemory(int vm_fd, const MachineOptions& options) {
    uint64_t whole = options.memory_mib * mib;
    uint64_t low =
        std::min(options.low_mib ? *options.low_mib * mib : whole, std::min(whole, most_low_memory));
    if (low < 4 * mib) fail("--low: 4 MiB at the least");
    slots_.push_back({.guest = 0, .size = low});
    if (low < whole) slots_.push_back({.guest = high_memory, .size = whole - low});

    uint8_t* mapping = options.one_mapping ? map_memory(whole, options.memory_kind) : nullptr;
    uint32_t number = 0;
    for (MemorySlot& slot : slots_) {
        slot.host = mapping ? mapping : map_memory(slot.size, options.memory_kind);
        if (mapping) mapping += slot.size;
        kvm_userspace_memory_region region{.slot = number++,
                                           .flags = 0,
                                           .guest_phys_addr = slot.guest,
                                           .memory_size = slot.size,
                                           .userspace_addr = reinterpret_cast<uint64_t>(slot.host)};
        control(vm_fd, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
    }
}

uint8_t* GuestMemory::at(uint64_t address, uint64_t size) const {
    for (const MemorySlot& slot : slots_)
        if (address >= slot.guest && address - slot.guest <= slot.size &&
            size <= slot.size - (address - slot.guest))
            return slot.host + (address - slot.guest);
    fail("the guest's memory is too small (--memory)");
}

void GuestMemory::write(uint64_t address, const void* bytes, size_t size) const {
    std::memcpy(at(address, size), bytes, size);
}

std::vector<uint8_t> read_whole_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) fail("cannot read " + path);
    return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace vmm
