// Linux' decompressor: what a boot loader starts, and what unpacks the kernel, chooses its place and jumps
// there.
#pragma once

#include <optional>

#include "backends/api/memory.h"

namespace exo::os {

// In `code`, which is mapped from `start` on: the jump into the unpacked kernel, of several (the decompressor
// copies itself before it begins) the one nearest to `pc`.
std::optional<VirtualAddress> find_jump_to_kernel(ConstBytes code, VirtualAddress start, VirtualAddress pc);

}  // namespace exo::os
