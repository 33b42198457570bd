#include "os-awareness/linux/list_walk.h"

#include <unordered_set>

namespace exo::os {
namespace {

using Link = std::uint64_t ListLinks::*;

class Walk {
public:
    Walk(std::uint64_t head, std::size_t limit, const std::function<Result<ListLinks>(std::uint64_t)>& links)
        : head_(head), limit_(limit), links_(links) {}

    struct Stop {
        std::string why;              // empty: came to the head
        std::uint64_t contested = 0;  // the node that would come next, did it link back as it should
    };

    // From `node` along `ahead` until the head. `from` is what it must link back to; 0: anything.
    Stop run(std::uint64_t from, std::uint64_t node, Link ahead, Link back,
             std::vector<std::uint64_t>& nodes) {
        bool strict = from != 0;
        while (node != head_) {
            if (node == 0 || node % sizeof(std::uint64_t) != 0) return {at(from, node), 0};
            if (seen_.contains(node)) return {at(from, node) + ", which came before", 0};
            if (seen_.size() >= limit_) return {"longer than " + std::to_string(limit_) + " nodes", 0};
            const auto found = links_(node);
            if (!found) return {at(from, node) + ": " + found.error().message, 0};
            if (strict && (*found).*back != from) {
                return {at(from, node) + ", which links back to " + hex((*found).*back), node};
            }
            seen_.insert(node);
            nodes.push_back(node);
            from = node;
            node = (*found).*ahead;
            strict = true;
        }
        return {};
    }

private:
    static std::string at(std::uint64_t from, std::uint64_t to) {
        return "node " + hex(from) + " links to " + hex(to);
    }

    std::uint64_t head_;
    std::size_t limit_;
    const std::function<Result<ListLinks>(std::uint64_t)>& links_;
    std::unordered_set<std::uint64_t> seen_;
};

}  // namespace

ListWalk walk_list(std::uint64_t head, ListLinks head_links, std::size_t limit,
                   const std::function<Result<ListLinks>(std::uint64_t node)>& links) {
    ListWalk result;
    auto& nodes = result.nodes;
    Walk walk{head, limit, links};
    const auto forward = walk.run(head, head_links.next, &ListLinks::next, &ListLinks::prev, nodes);
    if (forward.why.empty()) {
        if (head_links.prev != (nodes.empty() ? head : nodes.back())) {
            result.broken = "node " + hex(head) + " (the head) links back to " + hex(head_links.prev);
        }
        return result;
    }
    std::vector<std::uint64_t> from_the_back;
    const auto backward = walk.run(head, head_links.prev, &ListLinks::prev, &ListLinks::next, from_the_back);
    // Where both ends stopped at a node that is sound but links elsewhere, what it links to is worth having.
    if (!backward.why.empty()) {
        for (auto contested = forward.contested; contested != 0;) {
            contested = walk.run(0, contested, &ListLinks::next, &ListLinks::prev, nodes).contested;
        }
        for (auto contested = backward.contested; contested != 0;) {
            contested = walk.run(0, contested, &ListLinks::prev, &ListLinks::next, from_the_back).contested;
        }
    }
    nodes.insert(nodes.end(), from_the_back.rbegin(), from_the_back.rend());
    result.broken =
        forward.why + "; from the back: " + (backward.why.empty() ? "reached the front" : backward.why);
    return result;
}

}  // namespace exo::os
