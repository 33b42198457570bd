// Symbols of an ELF object that a dynamic linker has loaded, by what its dynamic section says (System V gABI,
// chapter 5; DT_GNU_HASH: binutils' elflink.c). It is in the memory of a program, which may hold anything.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "backends/api/memory.h"

namespace exo::os {

class DynamicSymbols {
public:
    // `dynamic`: where the section is, `bias`: run-time minus link-time addresses. `space` must outlive this.
    // bad_data: it has no end, no symbols, or no table to find them by.
    static Result<DynamicSymbols> read(AddressSpace& space, VirtualAddress dynamic, std::uint64_t bias);

    // Of a symbol that the object itself defines. not_found: it does not.
    Result<VirtualAddress> find(std::string_view name) const;

private:
    explicit DynamicSymbols(AddressSpace& space, std::uint64_t bias) : space_(&space), bias_(bias) {}
    Result<VirtualAddress> find_by_gnu_hash(std::string_view name) const;
    Result<VirtualAddress> find_by_hash(std::string_view name) const;
    // Nothing: it has another name, or is not defined here.
    Result<std::optional<VirtualAddress>> value_if_named(std::uint32_t index, std::string_view name) const;

    AddressSpace* space_;
    std::uint64_t bias_;
    VirtualAddress symbols_{};
    VirtualAddress names_{};
    std::uint64_t names_size_ = 0;
    VirtualAddress gnu_hash_{};
    VirtualAddress hash_{};
};

}  // namespace exo::os
