#include "os-awareness/symbols.h"

#include <algorithm>
#include <functional>
#include <utility>

namespace exo::os {
namespace {

std::uint64_t hash_of(std::string_view name) { return std::hash<std::string_view>{}(name); }

}  // namespace

void SymbolTable::reserve(std::size_t symbols, std::size_t name_bytes) {
    symbols_.reserve(symbols);
    names_.reserve(name_bytes);
}

void SymbolTable::add(VirtualAddress address, char type, std::string_view name) {
    symbols_.push_back({address, static_cast<std::uint32_t>(names_.size()), type});
    names_.append(name).push_back('\0');
}

void SymbolTable::finish() {
    if (!std::ranges::is_sorted(symbols_, {}, &Symbol::address)) {
        std::ranges::stable_sort(symbols_, {}, &Symbol::address);
    }
    by_name_.clear();
    by_name_.reserve(symbols_.size());
    for (std::uint32_t i = 0; i < symbols_.size(); ++i) by_name_.push_back({hash_of(name(symbols_[i])), i});
    std::ranges::sort(by_name_, {}, [](const Hashed& h) { return std::pair{h.hash, h.symbol}; });
}

std::string_view SymbolTable::name(const Symbol& symbol) const { return names_.data() + symbol.name; }

std::optional<VirtualAddress> SymbolTable::find(std::string_view wanted) const {
    const auto hash = hash_of(wanted);
    auto it = std::ranges::lower_bound(by_name_, hash, {}, &Hashed::hash);
    for (; it != by_name_.end() && it->hash == hash; ++it) {
        if (name(symbols_[it->symbol]) == wanted) return symbols_[it->symbol].address;
    }
    return std::nullopt;
}

std::optional<Symbol> SymbolTable::find_unique(std::string_view wanted) const {
    const auto hash = hash_of(wanted);
    std::optional<Symbol> found;
    auto it = std::ranges::lower_bound(by_name_, hash, {}, &Hashed::hash);
    for (; it != by_name_.end() && it->hash == hash; ++it) {
        if (name(symbols_[it->symbol]) != wanted) continue;
        if (found) return std::nullopt;
        found = symbols_[it->symbol];
    }
    return found;
}

std::optional<SymbolTable::Located> SymbolTable::locate(VirtualAddress address) const {
    const auto above = std::ranges::upper_bound(symbols_, address, {}, &Symbol::address);
    if (above == symbols_.begin()) return std::nullopt;
    // Of several names at one address the first listed is the one that kallsyms itself prefers.
    const auto nearest = std::prev(above)->address;
    const auto first = std::ranges::lower_bound(symbols_.begin(), above, nearest, {}, &Symbol::address);
    return Located{name(*first), raw(address) - raw(nearest)};
}

}  // namespace exo::os
