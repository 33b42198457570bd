// Where a function's arguments are when it is entered: the only place that is known of them without the
// compiler's own location lists, and where breakpoints on functions stop.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "os-awareness/linux/btf.h"

namespace exo::os::dwarf {

// From the first byte on, how far the registers of arguments still have what the caller put there: past the
// last byte of it the first instruction begins that might not leave them alone. At least 1: the first
// instruction itself has not run.
std::uint32_t entry_bytes(ConstBytes code);

// DWARF numbers of the registers of one argument.
struct ArgumentRegisters {
    std::array<std::uint8_t, 2> number{};
    std::uint8_t count = 0;  // 0: not in registers, or not known
};

// One for each parameter of the prototype, by the System V ABI (3.2.3) for integers, pointers and small
// structures; the kernel has no floating point. Ends with the first parameter of which the size is not known.
std::vector<ArgumentRegisters> argument_registers(const Btf& btf, const BtfType& prototype);

}  // namespace exo::os::dwarf
