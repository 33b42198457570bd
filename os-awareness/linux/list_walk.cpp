#include "os-awareness/linux/list_walk.h"

#include <unordered_set>

namespace exo::os {
namespace {

class Walk {
public:
    Walk(std::uint64_t head, std::size_t limit, const std::function<Result<ListLinks>(std::uint64_t)>& links)
        : head_(head), limit_(limit), links_(links) {}

    // From `first` along `ahead` until the head. Why not, if it does not get there.
    std::string run(std::uint64_t first, std::uint64_t ListLinks::* ahead, std::uint64_t ListLinks::* back,
                    std::vector<std::uint64_t>& nodes) {
        auto from = head_;
        for (auto node = first; node != head_;) {
            if (node == 0 || node % sizeof(std::uint64_t) != 0) return at(from) + " links to " + hex(node);
            if (seen_.contains(node)) return at(from) + " links to " + hex(node) + ", which came before";
            if (seen_.size() >= limit_) return "longer than " + std::to_string(limit_) + " nodes";
            const auto found = links_(node);
            if (!found) return at(from) + " links to " + hex(node) + ": " + found.error().message;
            if ((*found).*back != from) {
                return at(from) + " links to " + hex(node) + ", which links back to " + hex((*found).*back);
            }
            seen_.insert(node);
            nodes.push_back(node);
            from = node;
            node = (*found).*ahead;
        }
        return {};
    }

private:
    static std::string at(std::uint64_t node) { return "node " + hex(node); }

    std::uint64_t head_;
    std::size_t limit_;
    const std::function<Result<ListLinks>(std::uint64_t)>& links_;
    std::unordered_set<std::uint64_t> seen_;
};

}  // namespace

ListWalk walk_list(std::uint64_t head, ListLinks head_links, std::size_t limit,
                   const std::function<Result<ListLinks>(std::uint64_t node)>& links) {
    ListWalk result;
    Walk walk{head, limit, links};
    const auto forward = walk.run(head_links.next, &ListLinks::next, &ListLinks::prev, result.nodes);
    if (forward.empty()) {
        if (head_links.prev != (result.nodes.empty() ? head : result.nodes.back())) {
            result.broken = "node " + hex(head) + " (the head) links back to " + hex(head_links.prev);
        }
        return result;
    }
    std::vector<std::uint64_t> from_the_back;
    const auto backward = walk.run(head_links.prev, &ListLinks::prev, &ListLinks::next, from_the_back);
    result.nodes.insert(result.nodes.end(), from_the_back.rbegin(), from_the_back.rend());
    result.broken = forward + "; from the back: " + (backward.empty() ? "reached the front" : backward);
    return result;
}

}  // namespace exo::os
