// From raw memory and vCPU registers to a Linux kernel: where it is, its own page tables, its symbols.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backends/arch/x86_64.h"
#include "os-awareness/linux/vmcoreinfo.h"
#include "os-awareness/os.h"
#include "os-awareness/page_tables.h"
#include "os-awareness/symbols.h"

namespace exo::os {

struct KernelImage {
    VirtualAddress start{};            // run-time address of _text (the first mapped page of the image)
    VirtualAddress end{};              // past the last byte of the image that is mapped
    PhysicalAddress physical_start{};  // where `start` is; the image is physically contiguous
    // Run-time address of _text minus its link-time address. As two's complement: add it to a link-time
    // address.
    std::uint64_t slide = 0;
    // As the kernel runs, not as it could: a kernel built for 5 levels runs with 4 where the CPU has no LA57.
    x86::PagingMode mode = x86::PagingMode::levels4;
    PhysicalAddress root{};  // of the kernel's own tables (init_top_pgt, swapper_pg_dir), not of a process
    // Not so in early boot, which has tables of its own, and where nothing tells of the kernel's: then it is
    // the root that led here.
    bool own_root = false;
    std::uint64_t encryption_mask = 0;  // of AMD SME in a page-table entry, 0 if none

    SymbolTable symbols;  // run-time addresses; per-CPU symbols of kernels before 6.15 are small numbers
    std::string banner;   // "Linux version 6.1.0-…", without the line feed
    VirtualAddress banner_address{};
    std::optional<VmCoreInfo> vmcoreinfo;  // verified to be this kernel's
    std::vector<Finding> findings;

    std::unique_ptr<PageTables> space;  // over ProbeContext::memory through `root`

    bool data_symbols = false;      // kallsyms has those of data too (CONFIG_KALLSYMS_ALL)
    std::size_t added_symbols = 0;  // of VMCOREINFO, where it has not
};

// not_found with `failure` filled, one line a step, where there is no kernel (yet): firmware, boot loader,
// decompressor. Works from any state of the vCPUs. The result refers to context.memory.
Result<KernelImage> find_kernel_image(const ProbeContext& context, ProbeFailure& failure);

// Cheap: whether `image` is still what is in memory (its banner reads the same through its own tables).
// Not so after a reset or kexec. Goes over to the kernel's own tables once they are in use, where it had
// others.
bool still_there(KernelImage& image);

}  // namespace exo::os
