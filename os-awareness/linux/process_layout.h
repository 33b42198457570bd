// Where the fields are of the kernel structures that describe a process, its mappings and its files.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "os-awareness/linux/btf.h"
#include "os-awareness/linux/struct_layout.h"

namespace exo::os {

// A field and what it is called, for the error of a kernel that has none.
struct Member {
    Field field;
    const char* type = "";
    const char* path = "";

    [[nodiscard]] bool present() const { return field.present(); }
    explicit operator bool() const { return present(); }
};

struct ProcessLayout {
    struct {
        Member mm, fs, signal, cred, real_parent, parent, ptrace, tgid, pid, comm, flags, blocked, pending;
    } task;
    struct {
        Member nr_threads, shared_pending, pids, tty;
        Member numbers;                 // of struct pid; the first is that of the initial pid namespace
        Member process_group, session;  // where `pids` has them
    } signal;
    struct {
        Member driver, index, group;
        Member major, minor_start;  // of tty_driver
    } tty;
    struct {
        Member uid, euid, suid, fsuid, gid, egid, sgid, fsgid, inheritable, permitted, effective, bounding,
            ambient;
    } cred;
    struct {
        Member pgd;
        Member tree, list;  // of its mappings
        Member saved_auxv, arg_start, arg_end, env_start, env_end, exe_file, flags;
        Member brk, start_brk, start_stack, start_code, end_code;
        Member total_vm, hiwater_vm, locked_vm, pinned_vm, data_vm, stack_vm, exec_vm, pgtables_bytes;
        Member context_flags, ia32_compat;
        Member vdso, vdso_image;
    } mm;
    struct {
        Member data, size;
    } vdso_image;
    struct {
        Member start, end, next, mm, flags, pgoff, file, ops, private_data, anon_name, shared;
    } vma;
    struct {
        Member anon_name;        // anon_vma_name.name
        Member operation_name;   // vm_operations_struct.name
        Member special_mapping;  // vm_special_mapping.name
    } names;
    struct {
        Member path, inode, mode;
        Member user_path;  // backing_file.user_path
    } file;
    struct {
        Member dentry, mount;
    } path;
    struct {
        Member root, cwd, umask;
    } fs;
    struct {
        Member files;         // of task_struct
        Member table;         // of files_struct
        Member count, array;  // of fdtable
    } descriptors;
    struct {
        Member parent, name, name_length, inode, hash, operations, super_block, children, sibling;
        Member dynamic_name;  // dentry_operations.d_dname
    } dentry;
    struct {
        Member root, super_block;                         // of vfsmount
        Member mount, parent, mountpoint, mounts, child;  // of mount
    } mount;
    struct {
        Member number, size, mode, super_block, mapping, link;
        Member device, type;           // of super_block
        Member type_name, type_flags;  // of file_system_type
    } inode;
    struct {
        Member root;  // address_space.i_pages
        Member shift, slots;
        Member page_flags;                 // of a struct page
        Member references, page_mapping;   // of a struct page; where they are not there, no page is private
        Member index;                      // of a folio
        std::uint32_t page_bytes = 0;      // struct page
        std::optional<unsigned> uptodate;  // bit of page_flags
    } pages;
    struct {
        Member pivots, slots;          // of a leaf and of maple_range_64, which have the same layout
        Member gap_pivots, gap_slots;  // of maple_arange_64
        unsigned leaf = 1, range = 2, arange = 3;  // enum maple_type
    } maple;

    static ProcessLayout from(const Btf& btf);
};

}  // namespace exo::os
