#include "os-awareness/linux/process_layout.h"

#include <array>

namespace exo::os {
namespace {

// The first of `paths` that the type has; a path that is null ends them.
struct MemberRow {
    Member& (*member)(ProcessLayout&);
    const char* type;
    std::array<const char*, 3> paths;  // newest first
};

// NOLINTNEXTLINE(bugprone-macro-parentheses): a member's name cannot stand in parentheses
#define MEMBER(name) [](ProcessLayout& l) -> Member& { return l.name; }

// clang-format off
const MemberRow member_rows[] = {
    {MEMBER(task.mm), "task_struct", {"mm"}},
    {MEMBER(task.fs), "task_struct", {"fs"}},
    {MEMBER(task.signal), "task_struct", {"signal"}},
    {MEMBER(task.cred), "task_struct", {"real_cred"}},
    {MEMBER(task.real_parent), "task_struct", {"real_parent"}},
    {MEMBER(task.parent), "task_struct", {"parent"}},
    {MEMBER(task.ptrace), "task_struct", {"ptrace"}},
    {MEMBER(task.tgid), "task_struct", {"tgid"}},
    {MEMBER(task.pid), "task_struct", {"pid"}},
    {MEMBER(task.comm), "task_struct", {"comm"}},
    {MEMBER(task.flags), "task_struct", {"flags"}},
    {MEMBER(task.blocked), "task_struct", {"blocked"}},
    {MEMBER(task.pending), "task_struct", {"pending.signal"}},
    {MEMBER(signal.nr_threads), "signal_struct", {"nr_threads"}},
    {MEMBER(signal.shared_pending), "signal_struct", {"shared_pending.signal"}},
    {MEMBER(signal.pids), "signal_struct", {"pids"}},
    {MEMBER(signal.tty), "signal_struct", {"tty"}},
    {MEMBER(signal.numbers), "pid", {"numbers"}},
    {MEMBER(tty.driver), "tty_struct", {"driver"}},
    {MEMBER(tty.index), "tty_struct", {"index"}},
    {MEMBER(tty.group), "tty_struct", {"ctrl.pgrp", "pgrp"}},  // 6c80c0b94b94 (5.13)
    {MEMBER(tty.major), "tty_driver", {"major"}},
    {MEMBER(tty.minor_start), "tty_driver", {"minor_start"}},

    {MEMBER(cred.uid), "cred", {"uid.val"}},
    {MEMBER(cred.euid), "cred", {"euid.val"}},
    {MEMBER(cred.suid), "cred", {"suid.val"}},
    {MEMBER(cred.fsuid), "cred", {"fsuid.val"}},
    {MEMBER(cred.gid), "cred", {"gid.val"}},
    {MEMBER(cred.egid), "cred", {"egid.val"}},
    {MEMBER(cred.sgid), "cred", {"sgid.val"}},
    {MEMBER(cred.fsgid), "cred", {"fsgid.val"}},
    {MEMBER(cred.inheritable), "cred", {"cap_inheritable"}},
    {MEMBER(cred.permitted), "cred", {"cap_permitted"}},
    {MEMBER(cred.effective), "cred", {"cap_effective"}},
    {MEMBER(cred.bounding), "cred", {"cap_bset"}},
    {MEMBER(cred.ambient), "cred", {"cap_ambient"}},

    {MEMBER(mm.pgd), "mm_struct", {"pgd"}},
    // 524e00b36e8c (6.1) put the mappings into a tree; 763ecb035029 (6.1) took the list away.
    {MEMBER(mm.tree), "mm_struct", {"mm_mt.ma_root"}},
    {MEMBER(mm.list), "mm_struct", {"mmap"}},
    {MEMBER(mm.saved_auxv), "mm_struct", {"saved_auxv"}},
    {MEMBER(mm.arg_start), "mm_struct", {"arg_start"}},
    {MEMBER(mm.arg_end), "mm_struct", {"arg_end"}},
    {MEMBER(mm.env_start), "mm_struct", {"env_start"}},
    {MEMBER(mm.env_end), "mm_struct", {"env_end"}},
    {MEMBER(mm.exe_file), "mm_struct", {"exe_file"}},
    {MEMBER(mm.flags), "mm_struct", {"flags"}},
    {MEMBER(mm.brk), "mm_struct", {"brk"}},
    {MEMBER(mm.start_brk), "mm_struct", {"start_brk"}},
    {MEMBER(mm.start_stack), "mm_struct", {"start_stack"}},
    {MEMBER(mm.start_code), "mm_struct", {"start_code"}},
    {MEMBER(mm.end_code), "mm_struct", {"end_code"}},
    {MEMBER(mm.total_vm), "mm_struct", {"total_vm"}},
    {MEMBER(mm.hiwater_vm), "mm_struct", {"hiwater_vm"}},
    {MEMBER(mm.locked_vm), "mm_struct", {"locked_vm"}},
    {MEMBER(mm.pinned_vm), "mm_struct", {"pinned_vm"}},
    {MEMBER(mm.data_vm), "mm_struct", {"data_vm"}},
    {MEMBER(mm.stack_vm), "mm_struct", {"stack_vm"}},
    {MEMBER(mm.exec_vm), "mm_struct", {"exec_vm"}},
    {MEMBER(mm.pgtables_bytes), "mm_struct", {"pgtables_bytes.counter"}},
    // ff170cd05953 (5.11): before, what the process is.
    {MEMBER(mm.context_flags), "mm_struct", {"context.flags"}},
    {MEMBER(mm.ia32_compat), "mm_struct", {"context.ia32_compat"}},
    {MEMBER(mm.vdso), "mm_struct", {"context.vdso"}},
    {MEMBER(mm.vdso_image), "mm_struct", {"context.vdso_image"}},
    {MEMBER(vdso_image.data), "vdso_image", {"data"}},
    {MEMBER(vdso_image.size), "vdso_image", {"size"}},

    {MEMBER(vma.start), "vm_area_struct", {"vm_start"}},
    {MEMBER(vma.end), "vm_area_struct", {"vm_end"}},
    {MEMBER(vma.next), "vm_area_struct", {"vm_next"}},
    {MEMBER(vma.mm), "vm_area_struct", {"vm_mm"}},
    {MEMBER(vma.flags), "vm_area_struct", {"vm_flags", "flags"}},
    {MEMBER(vma.pgoff), "vm_area_struct", {"vm_pgoff"}},
    {MEMBER(vma.file), "vm_area_struct", {"vm_file"}},
    {MEMBER(vma.ops), "vm_area_struct", {"vm_ops"}},
    {MEMBER(vma.private_data), "vm_area_struct", {"vm_private_data"}},
    {MEMBER(vma.anon_name), "vm_area_struct", {"anon_name"}},  // 9a10064f5625 (5.17)
    {MEMBER(vma.shared), "vm_area_struct", {"shared"}},
    {MEMBER(names.anon_name), "anon_vma_name", {"name"}},
    {MEMBER(names.operation_name), "vm_operations_struct", {"name"}},
    {MEMBER(names.special_mapping), "vm_special_mapping", {"name"}},

    {MEMBER(file.path), "file", {"f_path"}},
    {MEMBER(file.inode), "file", {"f_inode"}},
    {MEMBER(file.mode), "file", {"f_mode"}},
    // def3ae83da02 (6.7): what the user has opened, where the mapped file is one below it (overlayfs).
    {MEMBER(file.user_path), "backing_file", {"user_path"}},
    {MEMBER(path.dentry), "path", {"dentry"}},
    {MEMBER(path.mount), "path", {"mnt"}},
    {MEMBER(fs.root), "fs_struct", {"root"}},
    {MEMBER(fs.cwd), "fs_struct", {"pwd"}},
    {MEMBER(fs.umask), "fs_struct", {"umask"}},

    {MEMBER(descriptors.files), "task_struct", {"files"}},
    {MEMBER(descriptors.table), "files_struct", {"fdt"}},
    {MEMBER(descriptors.count), "fdtable", {"max_fds"}},
    {MEMBER(descriptors.array), "fdtable", {"fd"}},

    {MEMBER(dentry.parent), "dentry", {"d_parent"}},
    {MEMBER(dentry.name), "dentry", {"d_name.name"}},
    {MEMBER(dentry.name_length), "dentry", {"d_name.len"}},
    {MEMBER(dentry.inode), "dentry", {"d_inode"}},
    {MEMBER(dentry.hash), "dentry", {"d_hash.pprev"}},
    {MEMBER(dentry.operations), "dentry", {"d_op"}},
    {MEMBER(dentry.super_block), "dentry", {"d_sb"}},
    // da549bdd15c2 (6.8) made the ring an hlist. Nodes of both begin with the link to the next.
    {MEMBER(dentry.children), "dentry", {"d_children", "d_subdirs"}},
    {MEMBER(dentry.sibling), "dentry", {"d_sib", "d_child", "d_u.d_child"}},
    {MEMBER(dentry.dynamic_name), "dentry_operations", {"d_dname"}},
    {MEMBER(mount.root), "vfsmount", {"mnt_root"}},
    {MEMBER(mount.super_block), "vfsmount", {"mnt_sb"}},
    {MEMBER(mount.mount), "mount", {"mnt"}},
    {MEMBER(mount.parent), "mount", {"mnt_parent"}},
    {MEMBER(mount.mountpoint), "mount", {"mnt_mountpoint"}},
    {MEMBER(mount.mounts), "mount", {"mnt_mounts"}},
    {MEMBER(mount.child), "mount", {"mnt_child"}},

    {MEMBER(inode.number), "inode", {"i_ino"}},
    {MEMBER(inode.size), "inode", {"i_size"}},
    {MEMBER(inode.mode), "inode", {"i_mode"}},
    {MEMBER(inode.super_block), "inode", {"i_sb"}},
    {MEMBER(inode.mapping), "inode", {"i_mapping"}},
    {MEMBER(inode.link), "inode", {"i_link"}},
    {MEMBER(inode.device), "super_block", {"s_dev"}},
    {MEMBER(inode.type), "super_block", {"s_type"}},
    {MEMBER(inode.type_name), "file_system_type", {"name"}},
    {MEMBER(inode.type_flags), "file_system_type", {"fs_flags"}},

    // b93b016313b3 (4.17) renamed page_tree, f8d5d0cc145c (4.20) rnode.
    {MEMBER(pages.root), "address_space", {"i_pages.xa_head"}},
    {MEMBER(pages.shift), "xa_node", {"shift"}},
    {MEMBER(pages.slots), "xa_node", {"slots"}},
    {MEMBER(pages.page_flags), "page", {"flags"}},
    {MEMBER(pages.references), "page", {"_refcount.counter"}},
    {MEMBER(pages.page_mapping), "page", {"mapping"}},
    // 7b230db3b8d3 (5.16) gave head pages a type of their own.
    {MEMBER(pages.index), "folio", {"index"}},

    {MEMBER(maple.pivots), "maple_range_64", {"pivot"}},
    {MEMBER(maple.slots), "maple_range_64", {"slot"}},
    {MEMBER(maple.gap_pivots), "maple_arange_64", {"pivot"}},
    {MEMBER(maple.gap_slots), "maple_arange_64", {"slot"}},
};
// clang-format on

#undef MEMBER

Member find_in(const Btf& btf, const char* type, const char* path) {
    auto found = field_in(btf, type, path);
    if (!found) return {{}, type, path};
    // An array of no fixed size has the size of what can be read at it: its address.
    if (found->size == 0) found->size = 1;
    return {*found, type, path};
}

// A pointer in an array of them.
Member element_of(const Member& array, std::optional<std::int64_t> index) {
    constexpr std::uint32_t pointer = 8;
    if (!array || !index || *index < 0 || *index >= array.field.size / pointer)
        return {{}, array.type, array.path};
    const auto offset = array.field.offset + static_cast<std::uint32_t>(*index) * pointer;
    return {{offset, pointer}, array.type, array.path};
}

unsigned enumerator_or(const Btf& btf, const char* of, const char* name, unsigned otherwise) {
    const auto value = btf.enumerator(of, name);
    return value && *value >= 0 && *value < 64 ? static_cast<unsigned>(*value) : otherwise;
}

}  // namespace

ProcessLayout ProcessLayout::from(const Btf& btf) {
    ProcessLayout layout;
    for (const auto& row : member_rows) {
        auto& member = row.member(layout);
        for (const auto* path : row.paths) {
            if (path == nullptr || member) break;
            member = find_in(btf, row.type, path);
        }
    }
    // Before there were folios, a page was one.
    if (!layout.pages.index) layout.pages.index = find_in(btf, "page", "index");
    if (const auto page = btf.find_composite("page")) {
        const auto size = btf.size_of(page->id).value_or(0);
        if (size <= 4096) layout.pages.page_bytes = static_cast<std::uint32_t>(size);
    }
    if (const auto bit = btf.enumerator("pageflags", "PG_uptodate"); bit && *bit >= 0 && *bit < 32) {
        layout.pages.uptodate = static_cast<unsigned>(*bit);
    }
    // struct upid, whose first member is the number.
    if (layout.signal.numbers) layout.signal.numbers.field.size = sizeof(std::uint32_t);
    layout.signal.process_group = element_of(layout.signal.pids, btf.enumerator("pid_type", "PIDTYPE_PGID"));
    layout.signal.session = element_of(layout.signal.pids, btf.enumerator("pid_type", "PIDTYPE_SID"));
    layout.maple.leaf = enumerator_or(btf, "maple_type", "maple_leaf_64", layout.maple.leaf);
    layout.maple.range = enumerator_or(btf, "maple_type", "maple_range_64", layout.maple.range);
    layout.maple.arange = enumerator_or(btf, "maple_type", "maple_arange_64", layout.maple.arange);
    return layout;
}

}  // namespace exo::os
