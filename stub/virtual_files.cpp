#include "stub/virtual_files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace exo::stub {
namespace {

// The part of `patch` that lies in `out`, which is at `offset` of the file.
void put_over(const os::FilePatch& patch, std::uint64_t offset, MutableBytes out) {
    const auto start = std::max(patch.offset, offset);
    const auto end = std::min(patch.offset + patch.bytes.size(), offset + out.size());
    if (start >= end) return;
    std::copy_n(patch.bytes.begin() + static_cast<std::ptrdiff_t>(start - patch.offset), end - start,
                out.begin() + static_cast<std::ptrdiff_t>(start - offset));
}

}  // namespace

Result<MemoryFile> MemoryFile::create(const char* name) {
    const int descriptor = ::memfd_create(name, MFD_CLOEXEC);
    if (descriptor < 0) return fail(Errc::backend, std::string{"memory for a file: "} + std::strerror(errno));
    return MemoryFile{descriptor, 0};
}

Result<FileContent> FileContent::open(const std::string& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0) return fail(Errc::not_found, "cannot open " + path + ": " + std::strerror(errno));
    FileContent file{descriptor, 0};
    struct stat status{};
    if (::fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
        return fail(Errc::bad_data, path + " is not a regular file");
    }
    file.size_ = static_cast<std::uint64_t>(status.st_size);
    return file;
}

FileContent::FileContent(FileContent&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      size_(std::exchange(other.size_, 0)),
      patches_(std::exchange(other.patches_, {})) {}

FileContent& FileContent::operator=(FileContent&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    std::swap(size_, other.size_);
    std::swap(patches_, other.patches_);
    return *this;
}

FileContent::~FileContent() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

Result<void> MemoryFile::append(ConstBytes bytes) {
    while (!bytes.empty()) {
        const ssize_t count = ::write(descriptor_, bytes.data(), bytes.size());
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return fail(Errc::backend, "a file in memory could not be written: is memory short?");
        size_ += static_cast<std::uint64_t>(count);
        bytes = bytes.subspan(static_cast<std::size_t>(count));
    }
    return {};
}

Result<std::size_t> FileContent::read(std::uint64_t offset, MutableBytes out) const {
    if (offset >= size_) return std::size_t{0};
    out = out.first(static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), size_ - offset)));
    std::size_t done = 0;
    while (done < out.size()) {
        const ssize_t count =
            ::pread(descriptor_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return fail(Errc::backend, "a published file could not be read: was it cut?");
        done += static_cast<std::size_t>(count);
    }
    for (const auto& patch : patches_) put_over(patch, offset, out);
    return done;
}

std::optional<std::uint64_t> OpenFiles::open(OpenFile file) {
    auto free = std::ranges::find_if(files_, [](const auto& kept) { return !kept.has_value(); });
    if (free == files_.end()) {
        if (files_.size() == most) return std::nullopt;
        free = files_.emplace(free);
    }
    *free = std::move(file);
    return static_cast<std::uint64_t>(free - files_.begin());
}

const OpenFile* OpenFiles::find(std::uint64_t descriptor) const {
    if (descriptor >= files_.size()) return nullptr;
    const auto& file = files_.at(descriptor);
    return file ? &*file : nullptr;
}

bool OpenFiles::close(std::uint64_t descriptor) {
    if (find(descriptor) == nullptr) return false;
    files_.at(descriptor).reset();
    return true;
}

}  // namespace exo::stub
