// The types that the kernel carries in its image.
#pragma once

#include "os-awareness/linux/btf.h"
#include "os-awareness/linux/kernel_image.h"

namespace exo::os {

struct KernelBtf {
    Btf btf;
    std::string found_by;  // "__start_BTF"
};

// By its symbols; where kallsyms has none of data, by a search of the image for what looks like it.
// not_found: a kernel without.
Result<KernelBtf> read_kernel_btf(KernelImage& image);

}  // namespace exo::os
