#include "backends/xen/vm_event_ring.h"

#include <atomic>
#include <bit>
#include <cstring>
#include <string>

namespace exo::xen {
namespace {

constexpr std::size_t ring_header = offsetof(vm_event_sring_t, ring);

std::uint32_t load(const RING_IDX& index) { return __atomic_load_n(&index, __ATOMIC_ACQUIRE); }
void store(RING_IDX& index, std::uint32_t value) { __atomic_store_n(&index, value, __ATOMIC_RELEASE); }

}  // namespace

VmEventRing::VmEventRing(std::span<std::byte> page)
    : ring_(reinterpret_cast<vm_event_sring_t*>(page.data())) {
    std::memset(page.data(), 0, ring_header);  // SHARED_RING_INIT
    ring_->req_event = ring_->rsp_event = 1;
    const auto entries = (page.size() - ring_header) / sizeof(vm_event_sring_entry);
    capacity_ = static_cast<std::uint32_t>(std::bit_floor(entries));
}

Result<std::optional<VmEvent>> VmEventRing::next() {
    const std::uint32_t produced = load(ring_->req_prod);
    if (produced == taken_) {
        // Asks for an event-channel event at the next one, then looks again (RING_FINAL_CHECK_FOR_REQUESTS).
        store(ring_->req_event, taken_ + 1);
        std::atomic_thread_fence(std::memory_order_seq_cst);
        if (load(ring_->req_prod) == taken_) return std::optional<VmEvent>{};
    }
    if (load(ring_->req_prod) - answered_ > capacity_)  // RING_REQUEST_PROD_OVERFLOW
        return fail(Errc::bad_data,
                    "the vm_event ring says that it has more requests than it can hold: "
                    "somebody else writes to it; detach, and connect again");
    VmEvent event{};
    // A copy: what is looked at cannot change under it.
    std::memcpy(&event, &ring_->ring[taken_ & (capacity_ - 1)].req, sizeof event);
    ++taken_;
    if (event.version != VM_EVENT_INTERFACE_VERSION)
        return fail(Errc::unsupported, "the hypervisor's vm_event interface has version " +
                                           std::to_string(event.version) + ", this exogdb knows version " +
                                           std::to_string(VM_EVENT_INTERFACE_VERSION) +
                                           "; take an exogdb that was built for this Xen");
    return event;
}

Result<void> VmEventRing::answer(const VmEvent& response) {
    if (unanswered() == 0) return fail(Errc::bad_data, "a vm_event response that nobody waits for");
    put(response);
    return {};
}

void VmEventRing::release(std::uint32_t vcpu) {
    VmEvent response{};
    response.version = VM_EVENT_INTERFACE_VERSION;
    response.flags = VM_EVENT_FLAG_VCPU_PAUSED;
    response.vcpu_id = vcpu;
    put(response);
}

void VmEventRing::put(const VmEvent& response) {
    std::memcpy(&ring_->ring[answered_ & (capacity_ - 1)].rsp, &response, sizeof response);
    ++answered_;
    store(ring_->rsp_prod, answered_);
}

}  // namespace exo::xen
