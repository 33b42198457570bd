// Registers of 32-bit programs, as gdb and lldb want them (gdb/features/i386/32bit-*.xml; numbers of DWARF
// are those of the System V i386 psABI, table 2.14). Each is the low part of one of x86::process_layout(),
// where the kernel has it: these sets are made for a client, and taken from it.
#pragma once

#include <span>
#include <vector>

#include "backends/api/registers.h"

namespace exo::i386 {

const RegisterLayout& process_layout();

// Which register of x86::process_layout() has that one; nothing past the last.
std::optional<RegisterNumber> whole(RegisterNumber number);

// `registers` is of x86::process_layout(); the result of process_layout().
RegisterSet narrowed(const RegisterSet& registers);

// `numbers` of `values`, which is of process_layout(), put into `registers`, which is of
// x86::process_layout(). Their numbers there.
std::vector<RegisterNumber> widen(const RegisterSet& values, std::span<const RegisterNumber> numbers,
                                  RegisterSet& registers);

}  // namespace exo::i386
