#include "os-awareness/linux/mappings.h"

#include <algorithm>

#include "os-awareness/linux/constants.h"
#include "os-awareness/linux/maple_tree.h"
#include "os-awareness/linux/text.h"

namespace exo::os {
namespace {

constexpr std::size_t longest_special_name = 256;
constexpr std::size_t longest_anon_name = 80;             // ANON_VMA_NAME_MAX_LEN, include/linux/mm.h
constexpr std::size_t name_column = 73;                   // show_vma_header_prefix(), fs/proc/task_mmu.c
constexpr unsigned minor_bits = 20;                       // include/linux/kdev_t.h
constexpr std::uint64_t vsyscall_none = 2;                // enum of vsyscall_mode
constexpr std::uint64_t context_has_vsyscall = 1U << 1U;  // MM_CONTEXT_HAS_VSYSCALL, asm/mmu.h

}  // namespace

std::string in_one_line(std::string_view name) {
    std::string text;
    for (const char c : name) {
        if (c == '\n') {
            text += "\\012";
        } else {
            text += c;
        }
    }
    return text;
}

Result<Vma> Mappings::read(std::uint64_t address) const {
    const auto& layout = layout_->vma;
    const auto value = [&](const Member& member) { return structures_->value(address, member); };
    return Vma{.address = address,
               .start = TRY(value(layout.start)),
               .end = TRY(value(layout.end)),
               .flags = TRY(value(layout.flags)),
               .page_offset = TRY(value(layout.pgoff)),
               .file = TRY(value(layout.file)),
               .operations = TRY(value(layout.ops))};
}

Result<Vma> Mappings::read_checked(std::uint64_t address, std::uint64_t mm) const {
    auto vma = TRY(read(address));
    const auto owner = TRY(structures_->value(address, layout_->vma.mm));
    const bool whole_pages = ((vma.start | vma.end) & ((1U << small_page_shift) - 1)) == 0;
    if (owner != mm || !whole_pages || vma.start >= vma.end || (vma.end & kernel_half) != 0) {
        return fail(Errc::bad_data, "the mapping at " + hex(address) + " (" + hex(vma.start) + " to " +
                                        hex(vma.end) + ") makes no sense");
    }
    return vma;
}

Result<std::vector<Vma>> Mappings::in_tree(std::uint64_t mm) const {
    std::vector<Vma> all;
    const auto add = [&](const MapleEntry& entry) -> Result<void> {
        const auto vma = TRY(read_checked(entry.pointer, mm));
        if (vma.start != entry.first || vma.end - 1 != entry.last) {
            return fail(Errc::bad_data,
                        "the mapping at " + hex(vma.start) +
                            " is not where their tree has it: it is being changed, or broken");
        }
        all.push_back(vma);
        return {};
    };
    const auto root = TRY(structures_->value(mm, layout_->mm.tree));
    CHECK_OK(walk_maple_tree(*structures_, *layout_, root, most, add));
    return all;
}

// Kernels before 6.1; sorted, so a cycle is a mapping that is not above the last one.
Result<std::vector<Vma>> Mappings::in_list(std::uint64_t mm) const {
    std::vector<Vma> all;
    auto address = TRY(structures_->value(mm, layout_->mm.list));
    while (address != 0) {
        const auto vma = TRY(read_checked(address, mm));
        if (all.size() == most || (!all.empty() && vma.start < all.back().end)) {
            return fail(Errc::bad_data, "the list of mappings is broken at " + hex(vma.start));
        }
        all.push_back(vma);
        address = TRY(structures_->value(address, layout_->vma.next));
    }
    return all;
}

Result<std::vector<Vma>> Mappings::of(std::uint64_t mm) const {
    auto all = layout_->mm.tree ? in_tree(mm) : in_list(mm);
    if (!all) return fail(std::move(all).error().with_context("mappings"));
    return all;
}

Result<std::optional<Vma>> Mappings::gate(std::uint64_t mm) const {
    const auto at = symbols_->find("gate_vma");
    if (!at) return std::optional<Vma>{};  // a kernel without it, or without symbols of data
    if (const auto mode = symbols_->find("vsyscall_mode")) {
        const auto value = TRY(structures_->space().read_value<std::uint32_t>(*mode));
        if (value == vsyscall_none) return std::optional<Vma>{};
    }
    const auto& layout = layout_->mm;
    const bool has = layout.context_flags
                         ? (TRY(structures_->value(mm, layout.context_flags)) & context_has_vsyscall) != 0
                         : TRY(structures_->value_if_present(mm, layout.ia32_compat)) == 0;
    if (!has) return std::optional<Vma>{};
    return std::optional{TRY(read(raw(*at)))};
}

Result<std::optional<PhysicalAddress>> Mappings::vdso_page(std::uint64_t mm, VirtualAddress address) const {
    const auto start = TRY(structures_->value_if_present(mm, layout_->mm.vdso));
    const auto image = TRY(structures_->value_if_present(mm, layout_->mm.vdso_image));
    if (start == 0 || image == 0 || raw(address) < start) return std::optional<PhysicalAddress>{};
    const auto offset = (raw(address) - start) & ~(small_page - 1);
    if (offset >= TRY(structures_->value(image, layout_->vdso_image.size)))
        return std::optional<PhysicalAddress>{};
    const auto data = TRY(structures_->value(image, layout_->vdso_image.data));
    if ((data & kernel_half) == 0 || data % small_page != 0)
        return fail(Errc::bad_data, "no vDSO can be at " + hex(data));
    return std::optional{TRY(structures_->space().translate(VirtualAddress{data + offset})).physical};
}

// What prctl(PR_SET_VMA_ANON_NAME) gave it. Until d09e8ca6cb93 (6.2) mappings of files had none, and
// something else in its place.
Result<std::string> Mappings::given_name(const Vma& vma) const {
    const auto &own = layout_->vma.anon_name.field, &other = layout_->vma.shared.field;
    if (vma.file != 0 && own.offset == other.offset) return std::string{};
    const auto name = TRY(structures_->value_if_present(vma.address, layout_->vma.anon_name));
    if (name == 0) return std::string{};
    return structures_->text_in(name, layout_->names.anon_name, longest_anon_name);
}

// What the mapping's own function says: [vdso], [vvar], [vsyscall].
Result<std::string> Mappings::special_name(const Vma& vma) const {
    if (vma.operations == 0) return std::string{};
    const auto function = TRY(structures_->value(vma.operations, layout_->names.operation_name));
    const auto symbol = function == 0 ? std::nullopt : symbols_->locate(VirtualAddress{function});
    if (!symbol || symbol->offset != 0) return std::string{};
    if (symbol->name == "gate_vma_name") return std::string{"[vsyscall]"};
    if (symbol->name != "special_mapping_name") return std::string{};
    const auto mapping = TRY(structures_->value(vma.address, layout_->vma.private_data));
    return structures_->text_at(mapping, layout_->names.special_mapping, longest_special_name);
}

// fs/proc/task_mmu.c: show_map_vma(), get_vma_name() since 6.11.
Result<std::string> Mappings::name(std::uint64_t mm, const Vma& vma, const GuestPath& root) const {
    const auto given = TRY(given_name(vma));
    if (vma.file != 0) {
        if (!given.empty()) return "[anon_shmem:" + given + "]";
        return in_one_line(TRY(paths_->name(TRY(paths_->of_file(vma.file)), root)));
    }
    if (auto special = TRY(special_name(vma)); !special.empty()) return special;
    const auto& layout = layout_->mm;
    const auto brk = TRY(structures_->value(mm, layout.brk));
    const auto start_brk = TRY(structures_->value(mm, layout.start_brk));
    const auto start_stack = TRY(structures_->value(mm, layout.start_stack));
    if (vma.start < brk && vma.end > start_brk) return std::string{"[heap]"};
    if (vma.start <= start_stack && vma.end >= start_stack) return std::string{"[stack]"};
    return given.empty() ? std::string{} : "[anon:" + given + "]";
}

Result<std::uint64_t> Mappings::inode(const Vma& vma) const {
    const auto path = TRY(paths_->of_file(vma.file));
    const auto own = TRY(paths_->read(TRY(structures_->address(vma.file, layout_->file.path))));
    if (path != own) return structures_->value(path.dentry, layout_->dentry.inode);
    return mapped_inode(vma);
}

Result<std::string> Mappings::line(std::uint64_t mm, const Vma& vma, const GuestPath& root) const {
    std::uint64_t device = 0, number = 0;
    if (vma.file != 0) {
        const auto inode = TRY(this->inode(vma));
        const auto super_block = TRY(structures_->value(inode, layout_->inode.super_block));
        device = TRY(structures_->value(super_block, layout_->inode.device));
        number = TRY(structures_->value(inode, layout_->inode.number));
    }
    const auto letter = [&](std::uint64_t bit, char yes, char no) {
        return (vma.flags & bit) != 0 ? yes : no;
    };
    std::string text = hex_digits(vma.start, 8) + "-" + hex_digits(vma.end, 8) + " ";
    text += {letter(vm_read, 'r', '-'), letter(vm_write, 'w', '-'), letter(vm_exec, 'x', '-'),
             letter(vm_may_share, 's', 'p')};
    text += " " + hex_digits(vma.file == 0 ? 0 : vma.page_offset << small_page_shift, 8);
    text += " " + hex_digits(device >> minor_bits, 2) + ":" +
            hex_digits(device & ((1U << minor_bits) - 1), 2) + " " + std::to_string(number) + " ";
    if (const auto shown = TRY(name(mm, vma, root)); !shown.empty()) {
        text.resize(std::max(text.size() + 1, name_column), ' ');
        text += shown;
    }
    return text + "\n";
}

}  // namespace exo::os
