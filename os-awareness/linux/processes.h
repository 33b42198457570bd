// Processes of Linux: the parts in mappings.h, paths.h, file_pages.h and proc_*.h put together.
#pragma once

#include "os-awareness/linux/descriptors.h"
#include "os-awareness/linux/kernel_image.h"
#include "os-awareness/linux/mappings.h"
#include "os-awareness/linux/path_lookup.h"
#include "os-awareness/linux/proc_smaps.h"
#include "os-awareness/linux/proc_status.h"
#include "os-awareness/os.h"

namespace exo::os {

class LinuxProcesses final : public Processes {
public:
    // `memory` is what the guest's tables are read from. All must outlive this.
    LinuxProcesses(PhysicalMemory& memory, KernelImage& image, const Btf& btf);

    Result<std::string> proc_file(const Task& task, std::string_view name) override;
    Result<std::string> proc_link(const Task& task, std::string_view name) override;
    Result<std::vector<OpenDescriptor>> open_files(const Task& task) override;
    Result<std::unique_ptr<AddressSpace>> readable_space(const Task& task) override;
    Result<bool> is_private_page(PhysicalAddress page) override { return files_.is_private(page); }
    Result<FileId> find_file(const Task& task, std::string_view path) override;
    Result<FileId> executable(const Task& task) override;
    Result<std::uint64_t> file_size(const FileId& file) override;
    Result<std::size_t> read_file(const FileId& file, std::uint64_t offset, MutableBytes out) override;

private:
    // 0 for a kernel thread, and for a process that has ended. no_such_thread when it is not that task.
    [[nodiscard]] Result<std::uint64_t> mm_of(const Task& task) const;
    [[nodiscard]] Result<std::uint64_t> exe_file(const Task& task) const;
    [[nodiscard]] Result<GuestPath> root_of(const Task& task) const;
    [[nodiscard]] Result<std::unique_ptr<x86::PageTables>> tables_of(std::uint64_t mm) const;
    [[nodiscard]] PhysicalAddress zero_page() const;
    [[nodiscard]] Result<std::string> maps(const Task& task, bool details) const;
    [[nodiscard]] Result<std::string> auxv(const Task& task) const;
    [[nodiscard]] Result<std::string> command_line(const Task& task);
    [[nodiscard]] Result<std::string> environment(const Task& task);
    [[nodiscard]] Result<std::string> dump_filter(const Task& task) const;
    [[nodiscard]] Result<std::string> user_text(const Task& task, std::uint64_t start, std::uint64_t end);
    // A file that has its bytes somewhere, and of which memory can tell.
    [[nodiscard]] Result<FilePages::Inode> regular(std::uint64_t inode) const;
    [[nodiscard]] Result<FilePages::Inode> same_file(const FileId& file) const;

    PhysicalMemory* memory_;
    KernelImage* image_;
    ProcessLayout layout_;
    Structures structures_;
    Paths paths_;
    FilePages files_;
    Mappings mappings_;
    PathLookup lookup_;
    Descriptors descriptors_;
    ProcStatus status_;
};

}  // namespace exo::os
