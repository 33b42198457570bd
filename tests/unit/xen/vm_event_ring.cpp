#include "backends/xen/vm_event_ring.h"

#include <doctest/doctest.h>

#include <array>

namespace exo {
namespace {

// The hypervisor's side of a ring.
struct Ring {
    Ring() {  // FRONT_RING_INIT
        front.sring = reinterpret_cast<vm_event_sring_t*>(page.data());
        front.nr_ents = static_cast<unsigned>(__RING_SIZE(front.sring, static_cast<long>(page.size())));
    }

    void put(std::uint32_t vcpu, std::uint32_t version = VM_EVENT_INTERFACE_VERSION) {
        xen::VmEvent event{};
        event.version = version;
        event.vcpu_id = vcpu;
        *RING_GET_REQUEST(&front, front.req_prod_pvt) = event;
        ++front.req_prod_pvt;
        front.sring->req_prod = front.req_prod_pvt;
    }
    [[nodiscard]] std::uint32_t responses() const { return front.sring->rsp_prod - front.rsp_cons; }
    std::uint32_t take() { return RING_GET_RESPONSE(&front, front.rsp_cons++)->vcpu_id; }

    alignas(4096) std::array<std::byte, xen::ring_page_size> page{};
    vm_event_front_ring_t front{};
};

}  // namespace

TEST_CASE("requests come in their order, and responses go back") {
    Ring xen;
    xen::VmEventRing ring{xen.page};
    CHECK(ring.capacity() == RING_SIZE(&xen.front));
    // Indices run on: several times around.
    for (std::uint32_t i = 0; i < 100; ++i) {
        xen.put(i);
        xen.put(i + 1000);
        for (const auto vcpu : {i, i + 1000}) {
            const auto event = ring.next();
            REQUIRE(event);
            REQUIRE(*event);
            CHECK((*event)->vcpu_id == vcpu);
        }
        CHECK(ring.unanswered() == 2);
        for (const auto vcpu : {i, i + 1000}) {
            xen::VmEvent response{};
            response.vcpu_id = vcpu;
            REQUIRE(ring.answer(response));
        }
        CHECK(xen.responses() == 2);
        CHECK(xen.take() == i);
        CHECK(xen.take() == i + 1000);
    }
    const auto none = ring.next();
    REQUIRE(none);
    CHECK_FALSE(*none);
    // The other side is asked to say when there is one.
    CHECK(xen.front.sring->req_event == xen.front.req_prod_pvt + 1);
}

TEST_CASE("a ring that cannot be is refused") {
    Ring xen;
    xen::VmEventRing ring{xen.page};
    xen.front.sring->req_prod = ring.capacity() + 1;
    CHECK(ring.next().error().code == Errc::bad_data);
    xen.front.sring->req_prod = 0xffffffff;
    CHECK(ring.next().error().code == Errc::bad_data);
    CHECK(ring.answer({}).error().code == Errc::bad_data);
    xen.front.sring->req_prod = 0;
    xen.put(0, VM_EVENT_INTERFACE_VERSION + 1);
    CHECK(ring.next().error().code == Errc::unsupported);
}

TEST_CASE("what was in the page before is not taken for requests") {
    Ring xen;
    xen.page.fill(std::byte{0xff});
    xen::VmEventRing ring{xen.page};
    const auto none = ring.next();
    REQUIRE(none);
    CHECK_FALSE(*none);
}

}  // namespace exo
