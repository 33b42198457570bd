#include "os-awareness/linux/file_pages.h"

#include <algorithm>
#include <array>

#include "os-awareness/linux/constants.h"

namespace exo::os {
namespace {

constexpr std::size_t longest_type_name = 32;

// Of these file systems all that a file has is in the page cache.
constexpr auto memory_file_systems =
    std::to_array<std::string_view>({"ramfs", "rootfs", "tmpfs", "devtmpfs"});

constexpr std::uint64_t fs_requires_dev = 1;  // include/linux/fs.h

// include/linux/xarray.h.
constexpr unsigned node_shift = 6;  // XA_CHUNK_SHIFT; 4 only with CONFIG_BASE_SMALL
constexpr std::uint64_t node_slots = 1U << node_shift;
constexpr std::uint64_t largest_sibling = (node_slots - 2) << 2U | 2;  // xa_is_sibling()
constexpr std::uint64_t most_pages_in_folio = 1U << 18U;               // of 1 GiB

// Of page.mapping, include/linux/page-flags.h: 3 is a page that KSM has merged.
constexpr std::uint64_t mapping_flags = 3;
constexpr std::uint64_t mapping_anonymous = 1;

bool is_value(std::uint64_t entry) { return (entry & 1) != 0; }
bool is_node(std::uint64_t entry) { return is_internal_entry(entry) && entry > largest_reserved; }

tl::unexpected<Error> not_in_memory(std::uint64_t index, std::string_view why) {
    return fail(Errc::bad_address,
                "not in memory: page " + std::to_string(index) + " of the file " + std::string{why});
}

}  // namespace

Result<FilePages::Inode> FilePages::inode(std::uint64_t address) const {
    const auto& layout = layout_->inode;
    const auto value = [&](const Member& member) { return structures_->value(address, member); };
    const auto super_block = TRY(value(layout.super_block));
    const auto type = TRY(structures_->value(super_block, layout.type));
    const auto type_name = TRY(structures_->text_at(type, layout.type_name, longest_type_name));
    return Inode{
        .id = {.inode = VirtualAddress{address},
               .device = TRY(structures_->value(super_block, layout.device)),
               .number = TRY(value(layout.number))},
        .size = TRY(value(layout.size)),
        .mode = TRY(value(layout.mode)),
        .mapping = TRY(value(layout.mapping)),
        .in_memory_only = std::ranges::find(memory_file_systems, type_name) != memory_file_systems.end(),
        .on_disk = (TRY(structures_->value(type, layout.type_flags)) & fs_requires_dev) != 0};
}

// xas_load(). 0: nothing is stored there.
Result<std::uint64_t> FilePages::entry(std::uint64_t mapping, std::uint64_t index) const {
    const auto& layout = layout_->pages;
    auto entry = TRY(structures_->value(mapping, layout.root));
    if (!is_node(entry)) return index == 0 ? entry : 0;
    unsigned above = 64;  // shift of the node above: each is below the last, so the walk ends
    while (is_node(entry)) {
        const auto node = entry & ~std::uint64_t{3};
        const auto shift = static_cast<unsigned>(TRY(structures_->value(node, layout.shift)));
        if (shift >= above || shift % node_shift != 0) {
            return fail(Errc::bad_data, "the tree of a file's pages is broken at " + hex(node));
        }
        if (above == 64 && shift + node_shift < 64 && index >> (shift + node_shift) != 0) return 0;
        above = shift;
        const auto slots = TRY(structures_->address(node, layout.slots));
        const auto slot = [&](std::uint64_t number) {
            return structures_->space().read_value<std::uint64_t>(slots + 8 * number);
        };
        entry = TRY(slot(index >> shift & (node_slots - 1)));
        if (is_internal_entry(entry) && entry <= largest_sibling) entry = TRY(slot(entry >> 2));
    }
    return entry;
}

Result<std::uint64_t> FilePages::pages_start() const {
    const auto base = symbols_->find("vmemmap_base");
    if (!base) return fail(Errc::unsupported, "no symbol vmemmap_base: where pages are is not known");
    return structures_->space().read_value<std::uint64_t>(*base);
}

// As the kernel's wp_can_reuse_anon_folio() (mm/memory.c) has it: one reference, which is the mapping's. A
// page that is one of a larger folio has none of its own, or the folio has more than one.
Result<bool> FilePages::is_private(PhysicalAddress page) const {
    const auto& layout = layout_->pages;
    if (layout.page_bytes == 0 || !layout.references || !layout.page_mapping) return false;
    const auto descriptor = TRY(pages_start()) + (raw(page) >> small_page_shift) * layout.page_bytes;
    const auto mapping = TRY(structures_->value(descriptor, layout.page_mapping));
    return TRY(structures_->value(descriptor, layout.references)) == 1 &&
           (mapping & mapping_flags) == mapping_anonymous;
}

Result<PhysicalAddress> FilePages::in_folio(std::uint64_t folio, std::uint64_t index) const {
    const auto& layout = layout_->pages;
    if (layout.page_bytes == 0 || !layout.uptodate) {
        return fail(Errc::unsupported, "no struct page or no PG_uptodate in this kernel's types");
    }
    const auto vmemmap = TRY(pages_start());
    const auto first = TRY(structures_->value(folio, layout.index));
    const auto flags = TRY(structures_->value(folio, layout.page_flags));
    const auto distance = folio - vmemmap;
    if (folio < vmemmap || distance % layout.page_bytes != 0 || index < first ||
        index - first >= most_pages_in_folio) {
        return fail(Errc::bad_data, "the page cache has something that is no page at " + hex(folio));
    }
    if ((flags >> *layout.uptodate & 1) == 0) return not_in_memory(index, "was not read from the disk yet");
    return PhysicalAddress{(distance / layout.page_bytes + (index - first)) << small_page_shift};
}

Result<std::optional<PhysicalAddress>> FilePages::page(const Inode& inode, std::uint64_t index) const {
    const auto found = TRY(entry(inode.mapping, index));
    if (is_value(found)) {
        // In tmpfs where it is in swap (mm/shmem.c), elsewhere when it was dropped (mm/workingset.c).
        return not_in_memory(index,
                             inode.in_memory_only ? "is swapped out" : "is not in the page cache any more");
    }
    if (found == 0 && inode.in_memory_only) return std::optional<PhysicalAddress>{};
    if (found == 0) return not_in_memory(index, "is not in the page cache");
    if (is_internal_entry(found)) return fail(Errc::bad_data, "the page cache is being changed there");
    return std::optional{TRY(in_folio(found, index))};
}

Result<std::size_t> FilePages::read(const Inode& inode, std::uint64_t offset, MutableBytes out) const {
    if (offset >= inode.size) return std::size_t{0};
    out = out.first(std::min<std::uint64_t>(out.size(), inode.size - offset));
    std::size_t done = 0;
    while (done < out.size()) {
        const auto at = offset + done;
        const auto in_page = at & (small_page - 1);
        const auto piece =
            out.subspan(done, std::min<std::uint64_t>(out.size() - done, small_page - in_page));
        const auto where = page(inode, at >> small_page_shift);
        if (!where && done > 0) break;
        if (const auto physical = TRY(where)) {
            CHECK_OK(structures_->space().physical().read(*physical + in_page, piece));
        } else {
            std::ranges::fill(piece, std::byte{0});
        }
        done += piece.size();
    }
    return done;
}

}  // namespace exo::os
