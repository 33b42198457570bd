#include "backends/host/shared_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <string>

namespace exo {
namespace {

// A reader of the mapping allocates the pages that the guest never touched; pread() does not. So the mapping
// is for the small reads only, of which there are many.
constexpr std::size_t map_read_limit = 16384;

std::string hex_digits(std::uint64_t value) {
    std::array<char, 17> digits{};
    const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value, 16).ptr;
    return {digits.data(), end};
}

bool is_mapped_file(int fd, const Mapping& mapping) {
    struct stat status{};
    if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_ino != mapping.inode) return false;
    const auto major_text = std::string_view{mapping.device}.substr(0, mapping.device.find(':'));
    unsigned long major_number = 0;
    std::from_chars(major_text.data(), major_text.data() + major_text.size(), major_number, 16);
    return major_number == major(status.st_dev);
}

FileDescriptor open_for_writing(const std::string& path) {
    FileDescriptor file{::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK)};
    if (!file.valid()) file = FileDescriptor{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    return file;
}

// /proc/PID/map_files needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE; /proc/PID/fd only ptrace access.
FileDescriptor open_mapped(pid_t pid, const Mapping& mapping) {
    const std::string base = "/proc/" + std::to_string(pid);
    auto file =
        open_for_writing(base + "/map_files/" + hex_digits(mapping.start) + "-" + hex_digits(mapping.end));
    if (file.valid() && is_mapped_file(file.get(), mapping)) return file;
    const std::string directory = base + "/fd";
    const std::unique_ptr<DIR, int (*)(DIR*)> entries{::opendir(directory.c_str()), &::closedir};
    if (!entries) return {};
    while (const dirent* entry = ::readdir(entries.get())) {
        const std::string path = directory + "/" + entry->d_name;
        struct stat status{};
        if (::stat(path.c_str(), &status) != 0 || status.st_ino != mapping.inode || !S_ISREG(status.st_mode))
            continue;
        file = open_for_writing(path);
        if (file.valid() && is_mapped_file(file.get(), mapping)) return file;
    }
    return {};
}

}  // namespace

std::shared_ptr<SharedFile> SharedFile::open(pid_t pid, const Mapping& mapping) {
    auto file = open_mapped(pid, mapping);
    struct stat status{};
    if (!file.valid() || ::fstat(file.get(), &status) != 0) return nullptr;
    std::shared_ptr<SharedFile> shared{
        new SharedFile(std::move(file), static_cast<std::uint64_t>(status.st_size))};
    shared->map();
    return shared;
}

// Only where no access can raise SIGBUS: the file must be sealed against shrinking (as QEMU's
// memory-backend-memfd does), and on tmpfs, since hugetlbfs can run out of huge pages.
void SharedFile::map() {
    const int seals = ::fcntl(file_.get(), F_GET_SEALS);
    struct statfs system{};
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || ::fstatfs(file_.get(), &system) != 0 ||
        system.f_type != TMPFS_MAGIC)
        return;
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED | MAP_NORESERVE, file_.get(), 0);
    if (address == MAP_FAILED) return;
    ::madvise(address, size_, MADV_DONTDUMP);
    map_ = static_cast<const std::byte*>(address);
}

SharedFile::~SharedFile() {
    if (map_ != nullptr) ::munmap(const_cast<std::byte*>(map_), size_);
}

ssize_t SharedFile::read(std::uint64_t offset, MutableBytes out) const {
    if (offset >= size_) return 0;
    const auto length = std::min<std::uint64_t>(out.size(), size_ - offset);
    if (map_ != nullptr && length <= map_read_limit) {
        std::memcpy(out.data(), map_ + offset, length);
        return static_cast<ssize_t>(length);
    }
    return ::pread(file_.get(), out.data(), length, static_cast<off_t>(offset));
}

ssize_t SharedFile::write(std::uint64_t offset, ConstBytes in) const {
    if (offset >= size_) return 0;
    const auto length = std::min<std::uint64_t>(in.size(), size_ - offset);
    return ::pwrite(file_.get(), in.data(), length, static_cast<off_t>(offset));
}

}  // namespace exo
