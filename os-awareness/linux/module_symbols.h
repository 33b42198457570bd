// A module's symbol file, out of what the kernel keeps of it: mod_kallsyms, split BTF, ORC.
#pragma once

#include <string>
#include <vector>

#include "os-awareness/elf/byte_sink.h"
#include "os-awareness/linux/btf.h"
#include "os-awareness/linux/kernel_image.h"
#include "os-awareness/linux/modules.h"

namespace exo::os {

// `btf` is the kernel's, null: no types. `orc`: how the kernel's own ORC tables are laid out; nothing: no
// frames. The result is what the file lacks and why, one line each.
Result<std::vector<std::string>> write_module_symbols(KernelImage& image, const Btf* btf,
                                                      std::optional<OrcLayout> orc, const Module& module,
                                                      ModuleList::Parts parts, ByteSink& sink);

}  // namespace exo::os
