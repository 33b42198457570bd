#include "backends/xen/foreign_frames.h"

#include <sys/mman.h>

#include <cerrno>
#include <type_traits>

namespace exo::xen {

Result<std::byte*> ForeignFrames::map(std::span<const std::uint64_t> frames, bool writable,
                                      std::span<int> errors) {
    static_assert(std::is_same_v<xen_pfn_t, unsigned long> && sizeof(xen_pfn_t) == sizeof(std::uint64_t));
    count(frames.size());
    void* const pages = xenforeignmemory_map(xen_.foreign(), domain_, PROT_READ | (writable ? PROT_WRITE : 0),
                                             frames.size(), frames.data(), errors.data());
    if (pages == nullptr)
        return fail(xen_.error("mapping memory of Xen domain " + std::to_string(domain_), errno));
    return static_cast<std::byte*>(pages);
}

void ForeignFrames::unmap(std::byte* pages, std::size_t count) {
    xenforeignmemory_unmap(xen_.foreign(), pages, count);
}

}  // namespace exo::xen
