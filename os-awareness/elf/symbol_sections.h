// .symtab and .strtab out of symbol tables that lie in memory.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "os-awareness/elf/elf_writer.h"
#include "os-awareness/symbols.h"

namespace exo::os {

// A range of the program's memory, at link-time addresses.
struct ImageSection {
    std::string name;
    std::uint64_t start = 0;
    std::uint64_t end = 0;
    bool executable = false;
    bool writable = false;
};

// Symbols and where they lie. Those in none of the sections are absolute: they keep their value whatever the
// slide, as per-CPU symbols of kernels before 6.15 must, whose values are offsets.
struct SymbolGroup {
    const SymbolTable* symbols = nullptr;  // run-time addresses
    std::uint64_t slide = 0;               // run-time minus link-time address, of what is in the sections
    std::vector<ImageSection> sections;    // sorted, disjoint
};

// The kernel's image from `start` to `end` (link-time), cut where the kernel's own symbols say that a section
// begins (include/asm-generic/vmlinux.lds.h, arch/x86/kernel/vmlinux.lds.S). One that is not known to begin
// belongs to the one before it.
std::vector<ImageSection> kernel_sections(const SymbolTable& symbols, std::uint64_t slide,
                                          std::uint64_t start, std::uint64_t end);

// Of the section of `sections` that holds `address`, or ends there and is the last; -1 if none does.
std::ptrdiff_t section_of(std::span<const ImageSection> sections, std::uint64_t address);

// Adds the sections of all groups, then .symtab and .strtab. `groups` must outlive the writing.
void add_symbol_sections(ElfWriter& elf, std::span<const SymbolGroup> groups);

// '?' for what is not printable ASCII: a terminal must not get what a guest wrote.
char printable(char c);

}  // namespace exo::os
