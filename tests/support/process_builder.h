// A process in a guest's memory: its mappings in a maple tree, its files in folders and in the page cache, as
// the kernel has them. Where each field lies is what this kernel's own types say, so tests name them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "os-awareness/linux/processes.h"
#include "tests/support/guest_builder.h"

namespace exo::test {

struct ProcessGuest {
    static constexpr std::uint64_t page_bytes = 4096, page_struct_bytes = 64;
    static constexpr std::uint64_t folder = 0040755, regular = 0100644, link = 0120777;  // i_mode
    static constexpr std::uint64_t read = 1, write = 2, execute = 4, may_share = 0x80;   // vm_flags

    // A process 70 with the mappings of a small program, a file system in memory and one on a disk that is
    // mounted on /mnt.
    ProcessGuest();

    // Room for a structure, zeroed.
    std::uint64_t make(std::string_view type);
    void set(std::uint64_t object, std::string_view type, std::string_view path, std::uint64_t value);
    [[nodiscard]] std::uint64_t get(std::uint64_t object, std::string_view type, std::string_view path);
    [[nodiscard]] std::uint64_t field(std::uint64_t object, std::string_view type,
                                      std::string_view path) const;
    std::uint64_t text(std::string_view text);  // in the kernel's memory, with a NUL

    std::uint64_t super_block(std::string_view file_system, std::uint64_t device, bool on_disk);
    std::uint64_t inode(std::uint64_t super_block, std::uint64_t number, std::uint64_t mode,
                        std::uint64_t size = 0);
    // A name in a folder; 0: the root of a file system.
    std::uint64_t dentry(std::uint64_t parent, std::string_view name, std::uint64_t inode);
    // The vfsmount of a file system whose root is that dentry, mounted on a path; the first one on nothing.
    std::uint64_t mount(std::uint64_t root, os::GuestPath on = {});
    std::uint64_t file(const os::GuestPath& path);
    // A page of the file in the page cache, which is up to date: its bytes, to be filled.
    MutableBytes page(std::uint64_t inode, std::uint64_t index);
    // The entry of the page cache for that page, to be read and changed.
    std::uint64_t& cache_entry(std::uint64_t inode, std::uint64_t index);

    std::uint64_t map(std::uint64_t start, std::uint64_t pages, std::uint64_t flags, std::uint64_t file = 0,
                      std::uint64_t page_offset = 0);
    // A page of the process, present at `address`: its bytes.
    MutableBytes present(std::uint64_t address);
    // The process' page-table entry of an address whose page was present().
    std::uint64_t& entry(std::uint64_t address);

    // What /proc has, or "error: …".
    std::string proc(std::string_view name);
    // Up to `size` bytes of the process' memory, or "error: …".
    std::string memory(std::uint64_t address, std::size_t size);
    std::string content(std::string_view path, std::uint64_t offset, std::size_t size);

    GuestBuilder guest;
    os::Btf btf;
    os::KernelImage image;
    os::Task task;
    std::uint64_t mm = 0, fs = 0, cred = 0, signal = 0, parent = 0;
    std::uint64_t leaf = 0;                    // of the tree of mappings
    std::uint64_t in_memory = 0, on_disk = 0;  // file systems
    os::GuestPath root, mounted;
    std::uint64_t bin = 0;                // the folder /bin
    std::uint64_t program = 0, data = 0;  // inodes of /bin/program and /mnt/data
    std::uint64_t text_vma = 0, data_vma = 0, anonymous_vma = 0;
    std::unique_ptr<os::LinuxProcesses> processes;

private:
    void make_task();
    void make_files();
    void make_mappings();

    PhysicalAddress tables_{};
    std::uint64_t vmemmap_ = 0;
    std::size_t mapped_ = 0;  // slots of the leaf
};

}  // namespace exo::test
