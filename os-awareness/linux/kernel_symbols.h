// The kernel's symbol file, out of what lies in its image: kallsyms, BTF, ORC, the build id.
#pragma once

#include <string>
#include <vector>

#include "os-awareness/elf/byte_sink.h"
#include "os-awareness/linux/btf.h"
#include "os-awareness/linux/kernel_image.h"

namespace exo::os {

// `btf` null: no types. The result is what the file lacks and why, one line each.
Result<std::vector<std::string>> write_kernel_symbols(KernelImage& image, const Btf* btf, ByteSink& sink);

}  // namespace exo::os
