#include "os-awareness/linux/proc_smaps.h"

#include <array>
#include <optional>
#include <string_view>

#include "os-awareness/linux/constants.h"
#include "os-awareness/linux/text.h"

namespace exo::os {
namespace {

constexpr std::uint64_t most_pages = std::uint64_t{1} << 24U;  // of one mapping: 64 GiB
constexpr std::uint64_t vm_mixedmap = 0x10000000;

// show_smap_vma_flags(): by bit of vm_flags. Bit 11 and those above 31 are others from kernel to kernel.
constexpr auto flag_names = std::to_array<std::string_view>(
    {"rd", "wr", "ex", "sh", "mr", "mw", "me", "ms", "gd", "um", "pf", "",   "uw", "lo", "io", "sr",
     "rr", "dc", "de", "",   "ac", "nr", "ht", "sf", "ar", "wf", "dd", "sd", "mm", "hg", "nh", "mg"});

std::string size_line(std::string_view name, std::uint64_t bytes) {
    std::string text{name};
    text += ':';
    text.resize(16, ' ');
    return text + number_text(bytes >> 10U, 10, 8, ' ') + " kB\n";
}

std::string flags_line(std::uint64_t flags) {
    std::string text = "VmFlags: ";
    for (std::size_t bit = 0; bit < flag_names.size(); ++bit) {
        if ((flags >> bit & 1) != 0 && !flag_names.at(bit).empty())
            text.append(flag_names.at(bit)).append(" ");
    }
    return text + "\n";
}

// The page of a leaf that is there, with or without access.
std::optional<std::uint64_t> page_of(const x86::PageTables::LastEntry& entry) {
    const auto start = entry_address & ~(entry.size - 1);
    if (entry.present()) return entry.value & start;
    if ((entry.value & entry_no_access) != 0) return ~entry.value & start;
    return std::nullopt;
}

}  // namespace

Result<bool> ProcSmaps::is_of_file(const Vma& vma, const FilePages::Inode& inode, std::uint64_t address,
                                   PhysicalAddress page) const {
    const auto index = ((address - vma.start) >> small_page_shift) + vma.page_offset;
    const auto cached = files_->page(inode, index);
    if (!cached && cached.error().code != Errc::bad_address) return fail(cached.error());
    return cached && *cached == page;
}

// smaps_pte_entry(). What is private and not the page of the file is the process' own.
Result<ProcSmaps::Counts> ProcSmaps::count(x86::PageTables& tables, const Vma& vma) const {
    Counts counts;
    if ((vma.flags & (vm_pfnmap | vm_io | vm_mixedmap)) != 0) return counts;
    if ((vma.end - vma.start) >> small_page_shift > most_pages) {
        return fail(Errc::unsupported, "a mapping of more than 64 GiB");
    }
    std::optional<FilePages::Inode> inode;
    if (vma.file != 0) inode = TRY(files_->inode(TRY(mappings_->mapped_inode(vma))));
    const bool own = vma.operations == 0 || (vma.file != 0 && (vma.flags & vm_may_share) == 0);
    for (auto address = vma.start; address < vma.end;) {
        const auto entry = TRY(tables.last_entry(VirtualAddress{address}));
        const auto left = std::min(entry.size - (address & (entry.size - 1)), vma.end - address);
        const auto start = page_of(entry);
        const auto page = start ? *start + (address & (entry.size - 1) & ~(small_page - 1)) : 0;
        if (start && (left != small_page || page != raw(zero_page_))) {
            counts.resident += left;
            const bool of_file = inode && own && vma.operations != 0 &&
                                 TRY(is_of_file(vma, *inode, address, PhysicalAddress{page}));
            if (own && !of_file) counts.anonymous += left;
        }
        address += left;
    }
    return counts;
}

Result<std::string> ProcSmaps::details(x86::PageTables& tables, const Vma& vma) const {
    const auto counts = TRY(count(tables, vma));
    return size_line("Size", vma.end - vma.start) + size_line("Rss", counts.resident) +
           size_line("Anonymous", counts.anonymous) + flags_line(vma.flags);
}

}  // namespace exo::os
