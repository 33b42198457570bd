// Functions: those of BTF whose names kallsyms has once.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "os-awareness/dwarf/type_writer.h"
#include "os-awareness/elf/symbol_sections.h"

namespace exo::os::dwarf {

// Reads the program's code at a run-time address: the count of bytes read, 0 where there are none.
using ReadCode = std::function<std::size_t(VirtualAddress, MutableBytes)>;

// Whether a symbol with that letter of nm is of code.
bool is_code(char letter);

struct FunctionSite {
    std::uint64_t start = 0;  // link-time
    std::uint32_t bytes = 0;
    BtfId function = 0;
    bool external = false;
};

struct FunctionSites {
    std::vector<FunctionSite> sites;  // by address, which are all different
    std::size_t unplaced = 0;         // no symbol of that name, or several
    std::size_t aliases = 0;          // further names of an address, which .symtab has
};
FunctionSites find_functions(const Btf& btf, const SymbolGroup& group);

// Their units. `loclists` gets .debug_loclists. `read_code` may be empty: then arguments are known at the
// first byte of a function only.
void write_functions(TypeWriter& types, std::span<const FunctionSite> sites, std::uint64_t slide,
                     const ReadCode& read_code, ByteBuffer& loclists);

}  // namespace exo::os::dwarf
