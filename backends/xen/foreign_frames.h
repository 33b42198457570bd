// Frames of a domain by Xen's own way, xenforeignmemory_map().
#pragma once

#include "backends/xen/frames.h"
#include "backends/xen/hypervisor.h"

namespace exo::xen {

class ForeignFrames final : public FrameMapper {
public:
    ForeignFrames(const Hypervisor& xen, DomainId domain) : xen_(xen), domain_(domain) {}

    Result<std::byte*> map(std::span<const std::uint64_t> frames, bool writable,
                           std::span<int> errors) override;
    void unmap(std::byte* pages, std::size_t count) override;

private:
    const Hypervisor& xen_;
    DomainId domain_;
};

}  // namespace exo::xen
