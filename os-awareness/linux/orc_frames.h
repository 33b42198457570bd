// Call frame information for debuggers, out of ORC tables.
//
// What gdb makes of frames decides their form (gdb 13: dwarf2/frame.c, frame.c):
//  - It prints "<signal handler called>" in place of the function's name for a frame of type SIGTRAMP (CIE
//    augmentation 'S'), and takes the pc of the frame outside of it as it is, not less one.
//  - It stops with "previous frame inner to this frame (corrupt stack?)" where the CFA of two neighbours that
//    are not SIGTRAMP goes down.
//  - It stops in silence at a frame whose return address is undefined; a rule cannot say "undefined" at run
//    time.
// So entry code has its name and an ordinary frame, and its caller's pc is one of three addresses that no
// code has, each with an FDE of its own: the frame of what was interrupted lies behind an 'S' frame, that of
// user mode is the outermost. The same where a stack is left for one at lower addresses.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "os-awareness/dwarf/cfi.h"
#include "os-awareness/linux/orc.h"

namespace exo::os {

struct UnwindMark {
    std::string_view symbol;  // what a debugger shows; the symbol file should define it, in a section
    std::uint64_t offset;     // from the address given to KernelFrames
};
inline constexpr std::uint64_t unwind_mark_bytes = 16;  // of each
inline constexpr std::uint64_t unwind_marks_bytes = 3 * unwind_mark_bytes;
inline constexpr std::array<UnwindMark, 3> unwind_marks{{
    {"user_mode", 0},
    {"interrupted_kernel", unwind_mark_bytes},
    {"stack_switch", 2 * unwind_mark_bytes},
}};

class KernelFrames {
public:
    // What `marks` is good for where it is not known better: below the image nothing is mapped.
    static constexpr std::uint64_t marks_below_image = 4096;
    static constexpr std::size_t max_bytes = std::size_t{64} << 20;  // stock kernels need 4 to 5 MB

    // `slide` is taken off every address. `marks`: unwind_marks_bytes at a link-time address without code.
    KernelFrames(std::uint64_t slide, VirtualAddress marks);

    // The last row of `table` holds up to `end`. Symbols are at run-time addresses as the table is, and cut
    // it into functions. bad_data if the section would become too large: it then lacks the rest of this
    // table.
    Result<void> add(const OrcTable& table, const SymbolTable& symbols, VirtualAddress end);

    // A pc of user mode has no caller: without this gdb guesses frames out of the user's stack. Only for a
    // file that is not to share gdb with symbols of user programs, whose own rules it would hide. gdb does
    // not find rules below a file's load offset (dwarf2_frame_find_fde), which programs linked to low
    // addresses are.
    void end_at_user_mode();

    [[nodiscard]] std::size_t size() const { return section_.size(); }
    // .debug_frame
    [[nodiscard]] cfi::Bytes take() { return section_.take(); }

private:
    struct Cies {
        cfi::FrameSection::Cie call, regs, regs_partial, user;
    };
    void add_mark(std::size_t index, cfi::FrameSection::Cie cie);

    std::uint64_t slide_;
    VirtualAddress marks_;
    cfi::FrameSection section_;
    Cies cies_{};
};

}  // namespace exo::os
