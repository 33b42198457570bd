// The page that the hypervisor and the monitor of a domain share: requests one way, responses the other
// (xen/include/public/io/ring.h). Nothing in it is believed: what lies there was once a page of the guest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "backends/api/result.h"
#include "backends/xen/vm_event.h"

namespace exo::xen {

inline constexpr std::size_t ring_page_size = 4096;

class VmEventRing {
public:
    // Of a page of ring_page_size, which outlives this, as the hypervisor begins with it: empty. Clears what
    // is there, so nothing may have been put into it yet.
    explicit VmEventRing(std::span<std::byte> page);

    // The next request, copied out of the page; nothing if there is none. bad_data if the indices cannot be,
    // unsupported if it is of another version of the interface.
    Result<std::optional<VmEvent>> next();
    // The other side has to be told by its event channel. bad_data if that many cannot have been asked for.
    Result<void> answer(const VmEvent& response);

    // A response for a vCPU whose request was lost with its ring. Only of a ring that is used for nothing
    // else.
    void release(std::uint32_t vcpu);

    // How many requests can wait for their response.
    [[nodiscard]] std::uint32_t capacity() const { return capacity_; }
    // How many have been taken out of the ring and not been answered.
    [[nodiscard]] std::uint32_t unanswered() const { return taken_ - answered_; }

private:
    void put(const VmEvent& response);

    vm_event_sring_t* ring_;
    std::uint32_t capacity_ = 0;  // a power of two
    // Free-running indices of ours. The page's copies of them are for the other side to read.
    std::uint32_t taken_ = 0;
    std::uint32_t answered_ = 0;
};

}  // namespace exo::xen
