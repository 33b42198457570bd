#include "os-awareness/linux/maple_tree.h"

#include <unordered_set>
#include <vector>

#include "os-awareness/linux/constants.h"

namespace exo::os {
namespace {

// include/linux/maple_tree.h and lib/maple_tree.c: a node is aligned to 256 bytes, and a pointer to it has
// the type in bits 6:3.
constexpr std::uint64_t node_mask = 0xff;
constexpr unsigned node_type_shift = 3;
constexpr std::uint64_t node_type_mask = 0xf;
constexpr std::size_t most_slots = 32;  // MAPLE_RANGE64_SLOTS is 16
constexpr int most_levels = 32;

struct MapleWalk {
    const Structures& structures;
    const ProcessLayout& layout;
    std::size_t limit;
    const std::function<Result<void>(const MapleEntry&)>& visit;
    std::unordered_set<std::uint64_t> seen{};

    struct Node {
        bool leaf = false;
        std::vector<std::uint64_t> pivots, slots;
    };

    Result<std::vector<std::uint64_t>> words(std::uint64_t node, const Member& member) const {
        const auto at = TRY(structures.address(node, member));
        std::vector<std::uint64_t> all(std::min(member.field.size / sizeof(std::uint64_t), most_slots));
        CHECK_OK(structures.space().read(at, std::as_writable_bytes(std::span{all})));
        return all;
    }

    Result<Node> read(std::uint64_t encoded) {
        const auto address = encoded & ~node_mask;
        if (seen.size() >= limit) return fail(Errc::bad_data, "more nodes than any process has");
        if (!seen.insert(address).second) {
            return fail(Errc::bad_data, "the node at " + hex(address) + " is met twice");
        }
        const auto type = encoded >> node_type_shift & node_type_mask;
        const auto& maple = layout.maple;
        if (type == maple.leaf || type == maple.range) {
            return Node{type == maple.leaf, TRY(words(address, maple.pivots)),
                        TRY(words(address, maple.slots))};
        }
        if (type == maple.arange) {
            return Node{false, TRY(words(address, maple.gap_pivots)), TRY(words(address, maple.gap_slots))};
        }
        return fail(Errc::bad_data,
                    "the node at " + hex(address) + " is of the unknown type " + std::to_string(type));
    }

    Result<void> entry(std::uint64_t pointer, std::uint64_t first, std::uint64_t last) const {
        if (pointer == 0 || is_internal_entry(pointer)) return {};  // a gap, or reserved (XA_ZERO_ENTRY)
        return visit({first, last, pointer});
    }

    // As mt_dump_range64() goes through a node.
    Result<void> walk(std::uint64_t encoded, std::uint64_t first, std::uint64_t max, int level) {
        if (level > most_levels) return fail(Errc::bad_data, "more levels than a tree has");
        const auto node = TRY(read(encoded));
        for (std::size_t i = 0; i < node.slots.size(); ++i) {
            const auto last = i < node.pivots.size() ? node.pivots[i] : max;
            if (last == 0 && i > 0) break;
            if (last < first || last > max) {
                return fail(Errc::bad_data,
                            "the pivots of the node at " + hex(encoded & ~node_mask) + " do not ascend");
            }
            if (node.leaf) {
                CHECK_OK(entry(node.slots[i], first, last));
            } else if (node.slots[i] != 0) {
                CHECK_OK(walk(node.slots[i], first, last, level + 1));
            }
            if (last == max) break;
            first = last + 1;
        }
        return {};
    }
};

}  // namespace

Result<void> walk_maple_tree(const Structures& structures, const ProcessLayout& layout, std::uint64_t root,
                             std::size_t limit, const std::function<Result<void>(const MapleEntry&)>& visit) {
    if (root == 0) return {};
    MapleWalk walk{structures, layout, limit, visit};
    const bool is_node = is_internal_entry(root) && root > largest_reserved;
    return is_node ? walk.walk(root, 0, ~std::uint64_t{0}, 0) : walk.entry(root, 0, 0);
}

}  // namespace exo::os
