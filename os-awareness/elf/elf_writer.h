// An ELF file for debuggers: x86-64, 64 bit, sections with given content (System V gABI, chapter 4).
//
// It is ET_EXEC, as vmlinux is: gdb looks for the load address of an ET_DYN in the auxiliary vector and in
// the dynamic linker (solib-svr4.c, svr4_exec_displacement), neither of which a kernel has. Memory of the
// program is there as SHT_NOBITS: a debugger reads it from the guest, but a symbol needs a section to move
// with. There is one PT_LOAD: gdb's get_offsets (remote.c) moves every section of a one-segment file by
// qOffsets' Text, but only .text, .data and .bss of a file with more than two. What lies outside of it does
// not move.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "os-awareness/elf/byte_sink.h"

namespace exo::os {

// Bytes of a section: their count beforehand, so that the file can be written in order.
struct SectionContent {
    std::uint64_t size = 0;
    std::function<Result<void>(ByteSink&)> write;  // exactly `size` bytes
};
// Refers to `bytes`.
SectionContent content_of(ConstBytes bytes);

struct ElfSection {
    std::string name;
    std::uint32_t type = 0;  // elf::type_*
    std::uint64_t flags = 0;
    std::uint64_t address = 0;
    std::uint64_t align = 1;
    std::uint32_t link = 0;  // a section's index
    std::uint32_t info = 0;
    std::uint64_t entry_size = 0;
    SectionContent content;  // of elf::type_nobits only the size
};

class ElfWriter {
public:
    // Its index in the file, from 1 on.
    std::uint32_t add(ElfSection section);
    [[nodiscard]] std::uint32_t next_index() const {
        return static_cast<std::uint32_t>(sections_.size()) + 1;
    }

    // The range of the one PT_LOAD.
    void set_segment(std::uint64_t start, std::uint64_t size) {
        segment_start_ = start;
        segment_size_ = size;
    }

    Result<void> write(ByteSink& sink) const;

private:
    std::vector<ElfSection> sections_;
    std::uint64_t segment_start_ = 0;
    std::uint64_t segment_size_ = 0;
};

}  // namespace exo::os
