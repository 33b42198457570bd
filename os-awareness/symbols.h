// Names and addresses of a kernel, in guest (run-time) addresses.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/memory.h"

namespace exo::os {

struct Symbol {
    VirtualAddress address{};
    std::uint32_t name = 0;  // offset into the table's string pool
    char type = '?';         // nm's letter
};

class SymbolTable {
public:
    void reserve(std::size_t symbols, std::size_t name_bytes);
    void add(VirtualAddress address, char type, std::string_view name);
    void finish();  // sorts; call after the last add, before anything is asked

    [[nodiscard]] std::span<const Symbol> by_address() const { return symbols_; }
    [[nodiscard]] std::string_view name(const Symbol& symbol) const;

    // The lowest address of that name; names are not unique (static functions).
    [[nodiscard]] std::optional<VirtualAddress> find(std::string_view name) const;

    // Nothing if there are several of that name.
    [[nodiscard]] std::optional<Symbol> find_unique(std::string_view name) const;

    struct Located {
        std::string_view name;
        std::uint64_t offset = 0;
    };
    // The nearest symbol at or below `address`.
    [[nodiscard]] std::optional<Located> locate(VirtualAddress address) const;

private:
    struct Hashed {
        std::uint64_t hash = 0;
        std::uint32_t symbol = 0;  // index into symbols_
    };

    std::vector<Symbol> symbols_;
    // Sorted by hash, then by address: comparing numbers keeps this within milliseconds for 200 000 symbols.
    std::vector<Hashed> by_name_;
    std::string names_;  // NUL-terminated, one after the other
};

}  // namespace exo::os
