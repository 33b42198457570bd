// What a kernel knows of its processes beside their threads: mappings, arguments, files. A capability of
// OsAwareness.
//
// Nothing is made up. What the guest has in its memory is given as it is, also while it runs; what it has not
// is an error that says "not in memory" and why. A structure that contradicts itself is bad_data: there is no
// list that is shorter than it should be.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/memory.h"

namespace exo::os {

struct Task;

// A file of the guest: the inode, and what tells whether it still is the same one.
struct FileId {
    VirtualAddress inode{};
    std::uint64_t device = 0;  // of the file system, as the kernel numbers it
    std::uint64_t number = 0;  // of the inode
    bool operator==(const FileId&) const = default;
};

// A file descriptor, and what it is of, as /proc/PID/fd/NUMBER leads there.
struct OpenDescriptor {
    std::uint32_t number = 0;
    std::string name;
};

class Processes {
public:
    Processes() = default;
    Processes(const Processes&) = delete;
    Processes& operator=(const Processes&) = delete;
    virtual ~Processes() = default;

    // What the task would read in its own /proc/self/NAME, or of its thread in task/TID/NAME: "maps",
    // "smaps", "status", "stat", "cmdline", "environ", "comm", "auxv", "coredump_filter". Of status, smaps
    // and stat only what memory tells: other lines are left out, and stat ends where the first such field
    // would be. not_found: no file of that name, or not of those that can be told.
    virtual Result<std::string> proc_file(const Task& task, std::string_view name) = 0;
    // Where "exe", "cwd", "root" and "fd/0" lead, as readlink(2) says it. A kernel thread has no exe:
    // not_found.
    virtual Result<std::string> proc_link(const Task& task, std::string_view name) = 0;

    // By number.
    virtual Result<std::vector<OpenDescriptor>> open_files(const Task& task) = 0;

    // The memory of the task's process, user addresses only and only to be read: writes are denied. Beside
    // what its page tables map there are, as the process itself would find them there: pages that are mapped
    // without access; pages of files that are in memory but not mapped yet; zeros for anonymous memory and
    // holes that nobody has touched. Pages that are swapped out or not in memory at all are bad_address,
    // with the reason.
    virtual Result<std::unique_ptr<AddressSpace>> readable_space(const Task& task) = 0;

    // Whether a page of 4 KiB that a process has mapped is anonymous memory of its alone: nobody else sees
    // what is written there, be it mapped read-only (after a fork, until the process itself writes there).
    virtual Result<bool> is_private_page(PhysicalAddress page) = 0;

    // The file that an absolute path names for this task: in its own root, through mounts and symbolic links.
    // Files that the process has mapped are found by the names that its maps have, others as far as the
    // kernel remembers their names: not_found may mean that it does not.
    virtual Result<FileId> find_file(const Task& task, std::string_view path) = 0;
    virtual Result<FileId> executable(const Task& task) = 0;
    // not_found when it is not that file any more.
    virtual Result<std::uint64_t> file_size(const FileId& file) = 0;
    // Bytes from `offset` on, out of the guest's page cache: fewer than asked for at the end of the file, or
    // where the next page is not in memory; bad_address where the first one is not.
    virtual Result<std::size_t> read_file(const FileId& file, std::uint64_t offset, MutableBytes out) = 0;
};

}  // namespace exo::os
