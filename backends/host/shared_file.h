// A file that a VMM has mapped shared as guest RAM, opened a second time.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backends/api/memory.h"
#include "backends/host/process.h"

namespace exo {

class SharedFile {
public:
    // Null if it cannot be opened: no permission, or not a regular file.
    static std::shared_ptr<SharedFile> open(pid_t pid, const Mapping& mapping);
    SharedFile(const SharedFile&) = delete;
    SharedFile& operator=(const SharedFile&) = delete;
    ~SharedFile();

    // Bytes copied, less than asked for at the end of the file, -1 with errno.
    [[nodiscard]] ssize_t read(std::uint64_t offset, MutableBytes out) const;
    [[nodiscard]] ssize_t write(std::uint64_t offset, ConstBytes in) const;
    [[nodiscard]] std::uint64_t size() const { return size_; }
    [[nodiscard]] bool mapped() const { return map_ != nullptr; }

private:
    SharedFile(FileDescriptor file, std::uint64_t size) : file_(std::move(file)), size_(size) {}
    void map();

    FileDescriptor file_;
    std::uint64_t size_ = 0;
    const std::byte* map_ = nullptr;
};

}  // namespace exo
