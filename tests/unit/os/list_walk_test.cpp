#include "os-awareness/linux/list_walk.h"

#include <doctest/doctest.h>

#include <map>

namespace {

using exo::fail;
using exo::Result;
using exo::os::ListLinks;
using exo::os::ListWalk;

constexpr std::uint64_t head = 0x1000;

// A ring of head and nodes at 0x2000, 0x3000 ….
struct Ring {
    std::map<std::uint64_t, ListLinks> nodes;
    std::map<std::uint64_t, int> visits;

    explicit Ring(std::uint64_t count) {
        for (std::uint64_t i = 0; i <= count; ++i) {
            nodes[head + i * 0x1000] = {i == count ? head : head + (i + 1) * 0x1000,
                                        i == 0 ? head + count * 0x1000 : head + (i - 1) * 0x1000};
        }
    }
    ListWalk walk(std::size_t limit = 100) {
        return exo::os::walk_list(head, nodes[head], limit, [this](std::uint64_t at) -> Result<ListLinks> {
            ++visits[at];
            const auto it = nodes.find(at);
            if (it == nodes.end()) return fail(exo::Errc::bad_address, "unreadable");
            return it->second;
        });
    }
};

using Nodes = std::vector<std::uint64_t>;

TEST_CASE("a sound ring gives every node once, in order") {
    Ring ring{4};
    const auto walk = ring.walk();
    CHECK(walk.nodes == Nodes{0x2000, 0x3000, 0x4000, 0x5000});
    CHECK(walk.broken.empty());
    for (const auto& [at, count] : ring.visits) CHECK(count == 1);
}

TEST_CASE("an empty ring") {
    Ring ring{0};
    CHECK(ring.walk().nodes.empty());
    CHECK(ring.walk().broken.empty());
}

TEST_CASE("an unreadable node costs only itself: the rest comes from the back") {
    Ring ring{5};
    ring.nodes.erase(0x4000);
    const auto walk = ring.walk();
    CHECK(walk.nodes == Nodes{0x2000, 0x3000, 0x5000, 0x6000});
    CHECK(walk.broken ==
          "node 0x3000 links to 0x4000: unreadable; from the back: node 0x5000 links to 0x4000: unreadable");
}

TEST_CASE("a next pointer that is wrong") {
    Ring ring{5};
    std::uint64_t bad = 0;
    SUBCASE("NULL") { bad = 0; }
    SUBCASE("not aligned") { bad = 0x4001; }
    SUBCASE("to itself") { bad = 0x3000; }
    SUBCASE("back") { bad = 0x2000; }
    SUBCASE("ahead") { bad = 0x6000; }
    SUBCASE("out of memory") { bad = 0x777000; }
    ring.nodes[0x3000].next = bad;
    const auto walk = ring.walk();
    CHECK(walk.nodes == Nodes{0x2000, 0x3000, 0x4000, 0x5000, 0x6000});
    CHECK(walk.broken.starts_with("node 0x3000 links to 0x"));
}

TEST_CASE("a cycle that leaves the head out") {
    Ring ring{3};
    ring.nodes[0x4000].next = 0x2000;
    ring.nodes[0x2000].prev = 0x4000;
    const auto walk = ring.walk();
    CHECK(walk.nodes == Nodes{0x2000, 0x3000, 0x4000});
    CHECK_FALSE(walk.broken.empty());
}

TEST_CASE("a head whose own links are wrong") {
    Ring ring{3};
    SUBCASE("next") {
        ring.nodes[head].next = 0xdead000;
        CHECK(ring.walk().nodes == Nodes{0x2000, 0x3000, 0x4000});
        CHECK_FALSE(ring.walk().broken.empty());
    }
    SUBCASE("prev") {
        ring.nodes[head].prev = 0xdead000;
        CHECK(ring.walk().nodes == Nodes{0x2000, 0x3000, 0x4000});
        CHECK(ring.walk().broken == "node 0x1000 (the head) links back to 0xdead000");
    }
    SUBCASE("both") {
        ring.nodes[head] = {0, 0};
        CHECK(ring.walk().nodes.empty());
        CHECK_FALSE(ring.walk().broken.empty());
    }
}

TEST_CASE("the limit ends it") {
    Ring ring{50};
    const auto walk = ring.walk(10);
    CHECK(walk.nodes.size() == 10);
    CHECK(walk.broken.starts_with("longer than 10 nodes"));
}

}  // namespace
