#include "os-awareness/symbols.h"

#include <algorithm>
#include <numeric>

namespace exo::os {

void SymbolTable::reserve(std::size_t symbols, std::size_t name_bytes) {
    symbols_.reserve(symbols);
    names_.reserve(name_bytes);
}

void SymbolTable::add(VirtualAddress address, char type, std::string_view name) {
    symbols_.push_back({address, static_cast<std::uint32_t>(names_.size()), type});
    names_.append(name).push_back('\0');
}

void SymbolTable::finish() {
    std::ranges::stable_sort(symbols_, {}, &Symbol::address);
    by_name_.resize(symbols_.size());
    std::iota(by_name_.begin(), by_name_.end(), 0U);
    // symbols_ is in address order, so a stable sort puts equal names in address order too.
    std::ranges::stable_sort(by_name_, {}, [this](std::uint32_t i) { return name(symbols_[i]); });
}

std::string_view SymbolTable::name(const Symbol& symbol) const { return names_.data() + symbol.name; }

std::optional<VirtualAddress> SymbolTable::find(std::string_view wanted) const {
    const auto it = std::ranges::lower_bound(by_name_, wanted, {},
                                             [this](std::uint32_t i) { return name(symbols_[i]); });
    if (it == by_name_.end() || name(symbols_[*it]) != wanted) return std::nullopt;
    return symbols_[*it].address;
}

std::optional<SymbolTable::Located> SymbolTable::locate(VirtualAddress address) const {
    auto it = std::ranges::upper_bound(symbols_, address, {}, &Symbol::address);
    if (it == symbols_.begin()) return std::nullopt;
    --it;
    // Of several names at one address the first listed is the one that kallsyms itself prefers.
    while (it != symbols_.begin() && std::prev(it)->address == it->address) --it;
    return Located{name(*it), raw(address) - raw(it->address)};
}

}  // namespace exo::os
