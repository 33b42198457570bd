#include "os-awareness/linux/process_space.h"

#include <algorithm>

#include "os-awareness/linux/constants.h"

namespace exo::os {
namespace {

// Entries that are not present, arch/x86/include/asm/pgtable_types.h and pgtable-invert.h.
constexpr std::uint64_t accessed_and_dirty = 0x60;  // stray bits of an empty entry (_PAGE_KNL_ERRATUM_MASK)

tl::unexpected<Error> not_in_memory(VirtualAddress address, std::string_view why) {
    return fail(Errc::bad_address, "not in memory: " + hex(address) + " " + std::string{why});
}

// Of a page of 4 KiB at `page`.
Translation translation(PhysicalAddress page, VirtualAddress address) {
    return {.physical = page + (raw(address) & (small_page - 1)),
            .page_size = small_page,
            .user = true,
            .read_only = true};
}

}  // namespace

void ProcessSpace::forget() {
    tables_->forget();
    all_.reset();
}

Result<Translation> ProcessSpace::translate(VirtualAddress address) {
    if ((raw(address) & kernel_half) != 0) {
        return fail(Errc::bad_address, hex(address) + " is the kernel's, not the process'");
    }
    auto found = tables_->translate(address);
    if (!found) return absent(address);
    found->read_only = true;
    return found;
}

Result<Translation> ProcessSpace::absent(VirtualAddress address) {
    const auto entry = TRY(tables_->last_entry(address));
    if (entry.present()) return fail(Errc::bad_data, hex(address) + " is being mapped");
    if ((entry.value & ~accessed_and_dirty) == 0) return untouched(address);
    if ((entry.value & entry_no_access) != 0) {
        // The number of the page is inverted, against the speculation of L1TF (6b28baca9b1f, 4.19).
        const auto start = ~entry.value & entry_address & ~(entry.size - 1);
        return Translation{.physical = PhysicalAddress{start + (raw(address) & (entry.size - 1))},
                           .page_size = entry.size,
                           .read_only = true};
    }
    return not_in_memory(address, "is swapped out, or on its way to another page");
}

Result<const Vma*> ProcessSpace::mapping_at(VirtualAddress address) {
    if (!all_) all_ = TRY(mappings_->of(mm_));
    const auto after = std::ranges::upper_bound(*all_, raw(address), {}, &Vma::start);
    if (after == all_->begin() || raw(address) >= std::prev(after)->end) {
        return fail(Errc::bad_address, hex(address) + " is not mapped");
    }
    return &*std::prev(after);
}

Result<Translation> ProcessSpace::zeros(VirtualAddress address) const {
    if (raw(zero_page_) == 0) return not_in_memory(address, "was never touched, and would read as zeros");
    return translation(zero_page_, address);
}

// What the process would find if it read there now.
Result<Translation> ProcessSpace::untouched(VirtualAddress address) {
    const Vma& vma = *TRY(mapping_at(address));
    if ((vma.flags & (vm_io | vm_pfnmap)) != 0) return not_in_memory(address, "is a device's");
    if ((vma.flags & vm_uffd_missing) != 0) {
        return not_in_memory(address, "is for the process itself to fill (userfaultfd)");
    }
    if (vma.operations == 0) return zeros(address);  // vma_is_anonymous(), include/linux/mm.h
    if (vma.file != 0) return of_file(vma, address);
    if (const auto page = TRY(mappings_->vdso_page(mm_, address))) return translation(*page, address);
    return not_in_memory(address, "is filled when it is first read");
}

Result<Translation> ProcessSpace::of_file(const Vma& vma, VirtualAddress address) {
    const auto inode = TRY(files_->inode(TRY(mappings_->mapped_inode(vma))));
    if ((inode.mode & file_type) != regular_file) return not_in_memory(address, "is a device's");
    const auto index = ((raw(address) - vma.start) >> small_page_shift) + vma.page_offset;
    if (index >= (inode.size + small_page - 1) >> small_page_shift) {
        return fail(Errc::bad_address, hex(address) + " is past the end of the mapped file");
    }
    const auto page = TRY(files_->page(inode, index));
    return page ? Result<Translation>{translation(*page, address)} : zeros(address);
}

}  // namespace exo::os
