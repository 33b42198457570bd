// Look-ups by name.
#include <algorithm>
#include <functional>

#include "os-awareness/linux/btf.h"

namespace exo::os {
namespace {

std::uint64_t name_hash(std::string_view text) {
    return static_cast<std::uint32_t>(std::hash<std::string_view>{}(text));
}

}  // namespace

void Btf::build_name_index() const {
    by_name_.reserve(records_.size());
    for (BtfId id = first_id_; id <= last_id(); ++id) {
        const auto text = name(*type(id));
        if (!text.empty()) by_name_.push_back(name_hash(text) << 32 | id);
    }
    // Sorting, since a guest can make as many equal names and hashes as it likes.
    std::ranges::sort(by_name_);
}

std::optional<BtfType> Btf::find(std::string_view wanted, BtfKind kind) const {
    if (wanted.empty()) return std::nullopt;
    if (base_ != nullptr) {
        if (auto found = base_->find(wanted, kind)) return found;
    }
    if (by_name_.empty()) build_name_index();
    const auto hash = name_hash(wanted);
    for (auto it = std::ranges::lower_bound(by_name_, hash << 32); it != by_name_.end() && *it >> 32 == hash;
         ++it) {
        const auto found = type(static_cast<BtfId>(*it));
        if (found && found->kind == kind && name(*found) == wanted) return found;
    }
    return std::nullopt;
}

// At most `limit` of the records of that name are looked at; those that are not count as tags.
std::size_t Btf::count_tags(std::string_view wanted, std::size_t limit) const {
    if (by_name_.empty()) build_name_index();
    const auto hash = name_hash(wanted);
    std::size_t tags = base_ != nullptr ? base_->count_tags(wanted, limit) : 0;
    for (auto it = std::ranges::lower_bound(by_name_, hash << 32); it != by_name_.end() && *it >> 32 == hash;
         ++it) {
        if (limit-- == 0) return tags + 2;
        const auto found = type(static_cast<BtfId>(*it));
        const bool tag =
            found && (found->composite() || found->kind == BtfKind::enum32 || found->kind == BtfKind::enum64);
        if (tag && name(*found) == wanted) ++tags;
    }
    return tags;
}

bool Btf::tag_is_shared(std::string_view wanted) const {
    constexpr std::size_t looked_at = 64;
    return !wanted.empty() && count_tags(wanted, looked_at) > 1;
}

std::optional<BtfType> Btf::find_composite(std::string_view wanted) const {
    for (const auto kind : {BtfKind::structure, BtfKind::union_}) {
        if (auto found = find(wanted, kind)) return found;
    }
    if (const auto alias = find(wanted, BtfKind::typedef_)) {
        auto found = resolve(alias->id);
        if (found && found->composite()) return found;
    }
    return std::nullopt;
}

}  // namespace exo::os
