#include "os-awareness/linux/pid_table.h"

#include <algorithm>

#include "os-awareness/linux/constants.h"

namespace exo::os {
namespace {

constexpr unsigned max_levels = 6;  // of 64 slots each: more than 31 bits of index

// An IDR is an XArray, or before 4.20 a radix tree, whose nodes look the same (lib/xarray.c): entries with
// the low bits `internal_mark` are nodes, the others are pointers to struct pid.
class Tree {
public:
    Tree(AddressSpace& space, const StructLayout& layout, std::uint32_t base, std::size_t limit,
         std::vector<std::string>& problems)
        : space_(space), layout_(layout), base_(base), limit_(limit), problems_(problems) {}

    void walk(std::uint64_t entry) { visit(entry, 0, 0, max_shift); }
    std::vector<PidEntry> take() { return std::move(entries_); }

private:
    static constexpr unsigned max_shift = 6 * max_levels;

    [[nodiscard]] bool is_node(std::uint64_t entry) const {
        // 4096 and below are marks of the XArray itself: retry, zero, siblings.
        return (entry & 3U) == layout_.pid_table.internal_mark && entry > 4096;
    }

    // `above`: the shift of the node that this hangs in, which must be larger than its own.
    void visit(std::uint64_t entry, std::uint64_t index, unsigned level, unsigned above) {
        if (entries_.size() >= limit_ || nodes_ > limit_) return;
        if (!is_node(entry)) {
            if ((entry & 3U) == 0 && (entry & kernel_half) != 0) add(entry, index);
            return;
        }
        const auto node = entry & ~std::uint64_t{3};
        const auto& table = layout_.pid_table;
        ++nodes_;
        const auto slot_count = std::min<std::size_t>(table.node_slots.size / 8, 64);
        std::vector<std::byte> bytes(table.node_slots.offset + slot_count * 8);
        const auto read = space_.read(VirtualAddress{node}, bytes);
        if (!read) {
            problems_.push_back("pid table: node of pids from " + std::to_string(index) + ": " +
                                read.error().message);
            return;
        }
        const auto shift = table.node_shift.in(bytes).value_or(max_shift);
        if (shift >= above || level >= max_levels || shift % 6 != 0) {
            problems_.push_back("pid table: node " + hex(node) + " with shift " + std::to_string(shift) +
                                " below one of " + std::to_string(above));
            return;
        }
        for (std::uint32_t i = 0; i < slot_count; ++i) {
            const auto slot = Field{table.node_slots.offset + i * 8, 8}.in(bytes).value_or(0);
            const auto next = index + (std::uint64_t{i} << shift);
            if (slot != 0) visit(slot, next, level + 1, static_cast<unsigned>(shift));
        }
    }

    void add(std::uint64_t pid, std::uint64_t index) {
        const auto first = space_.read_value<std::uint64_t>(
            VirtualAddress{pid + layout_.pid_table.pid_tasks.offset});  // tasks[PIDTYPE_PID].first
        const auto number = static_cast<std::uint32_t>(index + base_);
        if (!first) {
            problems_.push_back("pid table: pid " + std::to_string(number) + ": " + first.error().message);
        } else if (*first != 0) {
            entries_.push_back({number, *first - layout_.task.pid_links.offset});
        }
    }

    AddressSpace& space_;
    const StructLayout& layout_;
    std::uint32_t base_;
    std::size_t limit_;
    std::vector<std::string>& problems_;
    std::size_t nodes_ = 0;
    std::vector<PidEntry> entries_;
};

}  // namespace

std::vector<PidEntry> read_pid_table(AddressSpace& space, const StructLayout& layout,
                                     std::uint64_t pid_namespace, std::size_t limit,
                                     std::vector<std::string>& problems) {
    const auto& table = layout.pid_table;
    if (!table.root || !table.node_shift || !table.node_slots || !table.pid_tasks || !layout.task.pid_links) {
        return {};
    }
    const auto root = space.read_value<std::uint64_t>(VirtualAddress{pid_namespace + table.root.offset});
    if (!root) {
        problems.push_back("pid table: " + root.error().message);
        return {};
    }
    std::uint32_t base = 0;
    if (table.idr_base) {
        base = space.read_value<std::uint32_t>(VirtualAddress{pid_namespace + table.idr_base.offset})
                   .value_or(0);
    }
    const auto said = problems.size();
    Tree tree{space, layout, base, limit, problems};
    tree.walk(*root);
    // A torn-up table would otherwise drown everything else that is wrong.
    constexpr std::size_t enough = 8;
    if (problems.size() > said + enough) {
        const auto more = problems.size() - said - enough;
        problems.resize(said + enough);
        problems.push_back("pid table: " + std::to_string(more) + " more of these");
    }
    return tree.take();
}

}  // namespace exo::os
