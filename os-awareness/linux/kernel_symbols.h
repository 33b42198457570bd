// The kernel's symbol file, out of what lies in its image: kallsyms, BTF, ORC, the build id.
#pragma once

#include <string>
#include <vector>

#include "os-awareness/elf/byte_sink.h"
#include "os-awareness/linux/btf.h"
#include "os-awareness/linux/kernel_image.h"
#include "os-awareness/symbol_file.h"

namespace exo::os {

// What that file has and lacks and why, for `exogdb info`: symbols, types, frames;
// and the kernel's build id. Without making it.
std::vector<Finding> kernel_symbol_findings(KernelImage& image, const Result<const Btf*>& btf);

// Out of the kernel's notes, else out of VMCOREINFO.
Result<std::vector<std::byte>> kernel_build_id(KernelImage& image);

// `btf` null: no types. Addresses are the linker's plus `moved`. The result is what the file lacks and why,
// one line each.
Result<std::vector<std::string>> write_kernel_symbols(KernelImage& image, const Btf* btf, std::uint64_t moved,
                                                      ByteSink& sink);

// Who compiled a kernel by its banner: "GNU C 12.2.0"; "exogdb" for what is no GCC.
std::string producer_of(std::string_view banner);

// The file of code that the kernel's compiler made and its page tables map: the kernel's own, or a module's.
// The result is `problems` and what else the file lacks.
Result<std::vector<std::string>> write_code_symbols(KernelImage& image, SymbolFileInput input,
                                                    std::vector<std::string> problems, ByteSink& sink);

}  // namespace exo::os
