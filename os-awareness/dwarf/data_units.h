// Variables: those that BTF has (per-CPU ones, all with `global_var`), and those of known_globals().
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "os-awareness/dwarf/type_writer.h"
#include "os-awareness/elf/symbol_sections.h"

namespace exo::os::dwarf {

// Around a type, where a BTF need not have what a variable is of.
enum class Wrap : std::uint8_t { none, pointer, array, const_array };

struct VariableSite {
    std::uint64_t address = 0;  // link-time
    bool absolute = false;      // not moved with the image: a per-CPU offset
    std::uint32_t name = 0;     // as of TypeWriter::put_name
    BtfId type = 0;
    Wrap wrap = Wrap::none;
    bool external = false;
};

// A variable of the kernel whose type is the same in every version that has it. A debugger would know its
// address only: BTF leaves out all but per-CPU ones, and those too before 5.11 (pahole 1.18).
struct KnownGlobal {
    std::string_view symbol;
    BtfKind kind;  // of `type`
    std::string_view type;
    Wrap wrap;
    std::string_view source;  // file of the kernel that defines or declares it
};
std::span<const KnownGlobal> known_globals();

struct VariableSites {
    std::vector<VariableSite> sites;
    std::size_t unplaced = 0;  // variables of BTF of which the address is not known
};
VariableSites find_variables(TypeWriter& types, const SymbolGroup& group);

void write_variables(TypeWriter& types, std::span<const VariableSite> sites);

}  // namespace exo::os::dwarf
