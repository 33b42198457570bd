#include "os-awareness/linux/processes.h"

#include <algorithm>
#include <array>

#include "os-awareness/linux/constants.h"
#include "os-awareness/linux/process_space.h"
#include "os-awareness/linux/text.h"

namespace exo::os {
namespace {

constexpr std::uint64_t most_text = std::uint64_t{32}
                                    << 20U;  // of arguments or environment; 6 MiB by default
constexpr std::size_t most_maps = std::size_t{64} << 20U;
// MMF_DUMP_FILTER_SHIFT and _BITS, include/linux/mm_types.h (sched/coredump.h before 6.18).
constexpr unsigned dump_filter_shift = 2;
constexpr std::uint64_t dump_filter_mask = 0x1ff;

}  // namespace

LinuxProcesses::LinuxProcesses(PhysicalMemory& memory, KernelImage& image, const Btf& btf)
    : memory_(&memory),
      image_(&image),
      layout_(ProcessLayout::from(btf)),
      structures_(*image.space),
      paths_(structures_, layout_, image.symbols),
      files_(structures_, layout_, image.symbols),
      mappings_(structures_, layout_, paths_, image.symbols),
      lookup_(structures_, layout_, paths_, files_),
      descriptors_(structures_, layout_, paths_),
      status_(structures_, layout_) {}

Result<std::uint64_t> LinuxProcesses::mm_of(const Task& task) const {
    const auto address = raw(task.address);
    const auto tid = TRY(structures_.value(address, layout_.task.pid));
    if (tid != task.tid) {
        return fail(Errc::no_such_thread,
                    "no task " + std::to_string(task.tid) + " at " + hex(address) + " any more");
    }
    if (task.kernel_thread) return std::uint64_t{0};
    return structures_.value(address, layout_.task.mm);
}

Result<GuestPath> LinuxProcesses::root_of(const Task& task) const {
    const auto fs = TRY(structures_.value(raw(task.address), layout_.task.fs));
    if (fs == 0)
        return fail(Errc::not_found, "task " + std::to_string(task.tid) + " has ended: it has no root");
    return paths_.read(TRY(structures_.address(fs, layout_.fs.root)));
}

Result<std::unique_ptr<x86::PageTables>> LinuxProcesses::tables_of(std::uint64_t mm) const {
    const auto pgd = TRY(structures_.value(mm, layout_.mm.pgd));
    const auto root = TRY(image_->space->translate(VirtualAddress{pgd})).physical;
    return std::make_unique<x86::PageTables>(*memory_, root, image_->mode, image_->encryption_mask);
}

PhysicalAddress LinuxProcesses::zero_page() const {
    const auto symbol = image_->symbols.find("empty_zero_page");
    const auto page = symbol ? image_->space->translate(*symbol) : fail(Errc::not_found, "");
    return page ? page->physical : PhysicalAddress{0};
}

Result<std::unique_ptr<AddressSpace>> LinuxProcesses::readable_space(const Task& task) {
    const auto mm = TRY(mm_of(task));
    if (mm == 0) {
        return fail(Errc::bad_address,
                    "task " + std::to_string(task.tid) + " (" + task.comm + ") has no memory of its own");
    }
    return std::make_unique<ProcessSpace>(TRY(tables_of(mm)), mappings_, files_, mm, zero_page());
}

Result<std::string> LinuxProcesses::maps(const Task& task, bool details) const {
    const auto mm = TRY(mm_of(task));
    if (mm == 0) return std::string{};
    const auto root = TRY(root_of(task));
    const auto tables = TRY(tables_of(mm));
    const ProcSmaps smaps{mappings_, files_, zero_page()};
    std::string text;
    for (const auto& vma : TRY(mappings_.of(mm))) {
        if (text.size() > most_maps) return fail(Errc::bad_data, "mappings whose text has more than 64 MiB");
        text += TRY(mappings_.line(mm, vma, root));
        if (details) text += TRY(smaps.details(*tables, vma));
    }
    if (const auto gate = TRY(mappings_.gate(mm))) {
        text += TRY(mappings_.line(mm, *gate, root));
        if (details) text += TRY(smaps.details(*tables, *gate));
    }
    return text;
}

// auxv_read(), fs/proc/base.c: to the first pair of type 0, with it.
Result<std::string> LinuxProcesses::auxv(const Task& task) const {
    const auto mm = TRY(mm_of(task));
    if (mm == 0) return std::string{};
    const auto& member = layout_.mm.saved_auxv;
    const auto at = TRY(structures_.address(mm, member));
    std::string text(std::min<std::uint64_t>(member.field.size, small_page) & ~std::uint64_t{15}, '\0');
    CHECK_OK(structures_.space().read(at, std::as_writable_bytes(std::span{text})));
    for (std::size_t pair = 0; pair < text.size(); pair += 16) {
        if (text.find_first_not_of('\0', pair) >= pair + 8) {
            text.resize(pair + 16);
            break;
        }
    }
    return text;
}

Result<std::string> LinuxProcesses::user_text(const Task& task, std::uint64_t start, std::uint64_t end) {
    if (end - start > most_text) {
        return fail(Errc::bad_data, "a text of " + std::to_string(end - start) + " bytes");
    }
    std::string text(end - start, '\0');
    CHECK_OK(TRY(readable_space(task))->read(VirtualAddress{start}, std::as_writable_bytes(std::span{text})));
    return text;
}

// get_mm_cmdline(), fs/proc/base.c.
Result<std::string> LinuxProcesses::command_line(const Task& task) {
    const auto mm = TRY(mm_of(task));
    if (mm == 0) return std::string{};
    const auto start = TRY(structures_.value(mm, layout_.mm.arg_start));
    const auto end = TRY(structures_.value(mm, layout_.mm.arg_end));
    if (start >= end) return std::string{};
    auto text = TRY(user_text(task, start, end));
    if (text.back() == '\0') return text;
    // setproctitle(3) was here: one string, which may go on into the environment.
    const auto env_start = TRY(structures_.value(mm, layout_.mm.env_start));
    const auto env_end = TRY(structures_.value(mm, layout_.mm.env_end));
    const auto last = env_start == end && env_end > end ? env_end : end;
    text = TRY(user_text(task, start, std::min(last, start + small_page)));
    if (const auto nul = text.find('\0'); nul != text.npos) text.resize(nul + 1);
    return text;
}

Result<std::string> LinuxProcesses::environment(const Task& task) {
    const auto mm = TRY(mm_of(task));
    if (mm == 0) return std::string{};
    const auto start = TRY(structures_.value(mm, layout_.mm.env_start));
    const auto end = TRY(structures_.value(mm, layout_.mm.env_end));
    return start >= end ? std::string{} : user_text(task, start, end);
}

Result<std::string> LinuxProcesses::dump_filter(const Task& task) const {
    const auto mm = TRY(mm_of(task));
    if (mm == 0) return std::string{};
    const auto flags = TRY(structures_.value(mm, layout_.mm.flags));
    return hex_digits(flags >> dump_filter_shift & dump_filter_mask, 8) + "\n";
}

Result<std::string> LinuxProcesses::proc_file(const Task& task, std::string_view name) {
    CHECK_OK(mm_of(task));
    if (name == "maps" || name == "smaps") return maps(task, name == "smaps");
    if (name == "status") return status_.status(task);
    if (name == "stat") return status_.stat(task);
    if (name == "comm") return TRY(status_.comm(task)) + "\n";
    if (name == "cmdline") return command_line(task);
    if (name == "environ") return environment(task);
    if (name == "auxv") return auxv(task);
    if (name == "coredump_filter") return dump_filter(task);
    return fail(Errc::not_found, "no " + std::string{name} + " of a process can be told");
}

Result<std::vector<OpenDescriptor>> LinuxProcesses::open_files(const Task& task) {
    CHECK_OK(mm_of(task));
    return descriptors_.of(raw(task.address), TRY(root_of(task)));
}

// A struct file.
Result<std::uint64_t> LinuxProcesses::exe_file(const Task& task) const {
    const auto mm = TRY(mm_of(task));
    const auto file = mm == 0 ? std::uint64_t{0} : TRY(structures_.value(mm, layout_.mm.exe_file));
    if (file == 0)
        return fail(Errc::not_found, "task " + std::to_string(task.tid) + " has no executable file");
    return file;
}

Result<std::string> LinuxProcesses::proc_link(const Task& task, std::string_view name) {
    CHECK_OK(mm_of(task));
    const auto root = TRY(root_of(task));
    if (name == "root") return paths_.name(root, {});
    if (name == "cwd") {
        const auto fs = TRY(structures_.value(raw(task.address), layout_.task.fs));
        return paths_.name(TRY(paths_.read(TRY(structures_.address(fs, layout_.fs.cwd)))), root);
    }
    if (name.starts_with("fd/")) {
        for (auto& file : TRY(descriptors_.of(raw(task.address), root))) {
            if (std::to_string(file.number) == name.substr(3)) return std::move(file.name);
        }
    }
    if (name != "exe")
        return fail(Errc::not_found, "no link " + std::string{name} + " of a process is known");
    return paths_.name(TRY(paths_.of_file(TRY(exe_file(task)))), root);
}

Result<FilePages::Inode> LinuxProcesses::regular(std::uint64_t inode) const {
    auto found = TRY(files_.inode(inode));
    if ((found.mode & file_type) != regular_file) return fail(Errc::not_found, "it is no regular file");
    if (found.size == 0 && !found.in_memory_only && !found.on_disk) {
        return fail(Errc::bad_address,
                    "not in memory: what the kernel makes when it is read, or a file of size 0");
    }
    return found;
}

Result<FilePages::Inode> LinuxProcesses::same_file(const FileId& file) const {
    auto found = TRY(regular(raw(file.inode)));
    if (found.id != file) return fail(Errc::not_found, "the guest has closed that file and forgotten it");
    return found;
}

Result<FileId> LinuxProcesses::find_file(const Task& task, std::string_view path) {
    const auto mm = TRY(mm_of(task));
    const auto root = TRY(root_of(task));
    if (mm != 0) {
        for (const auto& vma : TRY(mappings_.of(mm))) {
            if (vma.file == 0) continue;
            const auto mapped = TRY(paths_.of_file(vma.file));
            // The way up to the root is walked for few of them.
            if (path.find(TRY(paths_.component(mapped.dentry))) == path.npos) continue;
            if (TRY(paths_.name(mapped, root)) != path) continue;
            return TRY(regular(TRY(mappings_.mapped_inode(vma)))).id;
        }
    }
    const auto found = TRY(lookup_.find(root, path));
    return TRY(regular(TRY(structures_.value(found.dentry, layout_.dentry.inode)))).id;
}

Result<FileId> LinuxProcesses::executable(const Task& task) {
    const auto file = TRY(exe_file(task));
    return TRY(regular(TRY(structures_.value(file, layout_.file.inode)))).id;
}

Result<std::uint64_t> LinuxProcesses::file_size(const FileId& file) { return TRY(same_file(file)).size; }

Result<std::size_t> LinuxProcesses::read_file(const FileId& file, std::uint64_t offset, MutableBytes out) {
    return files_.read(TRY(same_file(file)), offset, out);
}

}  // namespace exo::os
