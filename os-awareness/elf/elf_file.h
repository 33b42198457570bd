// What is asked of an ELF file that somebody else made, read from where it is: a vmlinux has hundreds of
// megabytes. The file may be anything.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "backends/api/memory.h"

namespace exo::os {

// Bytes of a file from `offset` on: the count that was read, fewer than asked for only at the end.
using ReadFileAt = std::function<Result<std::size_t>(std::uint64_t offset, MutableBytes out)>;

// The GNU build id of a 64-bit x86 ELF file, out of its note segments and sections. bad_data: no such file,
// and what it is instead; not_found: it has no build id.
Result<std::vector<std::byte>> read_build_id(const ReadFileAt& read);

// Where the kernel in it is linked: the lowest address that it loads in the kernel's half. bad_data: there is
// none.
Result<std::uint64_t> read_link_address(const ReadFileAt& read);

struct FilePatch {
    std::uint64_t offset = 0;
    std::vector<std::byte> bytes;
};

// What makes a debugger move all of a vmlinux by the slide. A linked kernel has four segments, and of a file
// with more than two gdb moves but .text, .data and .bss by qOffsets (see elf_writer.h). With these patches
// it has one, of everything at kernel addresses and of its bytes in the file (BFD's ELF_SECTION_IN_SEGMENT
// looks at both); sections elsewhere (per-CPU variables at 0, before 6.15) are said to have no content in the
// file, since gdb warns of those that no segment holds. Errors as read_build_id.
Result<std::vector<FilePatch>> patches_for_one_segment(const ReadFileAt& read);

}  // namespace exo::os
