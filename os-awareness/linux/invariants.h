// Where task_struct has its fields, for kernels that carry no BTF: found by what must be so in any Linux.
#pragma once

#include "os-awareness/linux/kernel_image.h"
#include "os-awareness/linux/struct_layout.h"

namespace exo::os {

// From init_task and the tasks that are linked to it: the idle task is called swapper, the list of tasks
// closes both ways and begins with pids 1 and 2, kernel stacks end in a magic number, and so on; each rule is
// said at its function. `missing` of the result names what could not be found: all of it before there are
// two tasks. The pid table is not looked for.
StructLayout layout_from_invariants(KernelImage& image, std::uint64_t init_task);

// The idle task of CPU 0 by its name in the image, for kernels whose symbols are code only; 0 if there is
// none. `layout` must have comm, pid and stack.
std::uint64_t find_init_task(KernelImage& image, const StructLayout& layout);

}  // namespace exo::os
