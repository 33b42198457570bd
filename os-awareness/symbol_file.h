// The file that a debugger gets as the program: an ELF made from what lies in the guest's memory. It has
// .symtab (kallsyms), types, functions and variables as DWARF (BTF), frames if somebody made them (ORC), and
// the kernel's build id. Addresses are link-time ones, so that qOffsets moves it as it does a vmlinux.
//
// One file is for one image: the kernel, or a module (slide 0, its sections, BTF on the kernel's). gdb moves
// all DWARF of a file with its .text, so code that does not move with the kernel's needs a file of its own.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "os-awareness/dwarf/code_units.h"
#include "os-awareness/elf/elf_writer.h"
#include "os-awareness/elf/symbol_sections.h"
#include "os-awareness/linux/btf.h"

namespace exo::os {

struct SymbolFileInput {
    SymbolGroup image;  // see kernel_sections()
    // Symbols at other addresses, such as those of modules; of them, only .symtab tells.
    std::vector<SymbolGroup> others;
    const Btf* btf = nullptr;           // none: no types, no functions
    std::string_view name = "vmlinux";  // of the program, where a debugger names a source file
    // Who compiled the code, as DW_AT_producer has it. Of code by "GNU C 4.5" or later gdb takes frames as
    // true at a `ret` as well, which ORC's are, and does not look for one at each frame that it shows: a
    // packet for each thread in `info threads` (gdb/amd64-tdep.c, amd64_stack_frame_destroyed_p()).
    std::string_view producer = "exogdb";
    std::span<const std::byte> build_id;  // empty if not known
    std::span<const std::byte> frames;    // .debug_frame at link-time addresses, empty if there is none
    dwarf::ReadCode read_code;            // may be empty
};

struct SymbolFileSummary {
    std::size_t symbols = 0;
    std::size_t functions = 0;
    std::size_t variables = 0;
    std::vector<std::string> problems;  // what is not in it and why, one line each
};

// Errors are the sink's. What the guest has wrong is left out and said in `problems`.
Result<SymbolFileSummary> write_symbol_file(const SymbolFileInput& input, ByteSink& sink);

// The description of the GNU build-id note among `notes` (the kernel's .notes, from __start_notes to
// __stop_notes); empty if there is none.
std::span<const std::byte> find_build_id(ConstBytes notes);

}  // namespace exo::os
