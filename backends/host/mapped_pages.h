// Pages of a file that this process shares with another.
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

#include "backends/api/result.h"

namespace exo {

class MappedPages {
public:
    MappedPages() = default;
    // MAP_SHARED from the file's beginning, readable and writable. The descriptor is not needed afterwards.
    static Result<MappedPages> map(int fd, std::size_t size) {
        void* const data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED)
            return fail(Errc::denied,
                        std::string{"mapping memory shared with the VMM: "} + std::strerror(errno));
        MappedPages pages;
        pages.data_ = static_cast<std::byte*>(data);
        pages.size_ = size;
        return pages;
    }
    MappedPages(MappedPages&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    MappedPages& operator=(MappedPages&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    ~MappedPages() {
        if (data_ != nullptr) ::munmap(data_, size_);
    }

    [[nodiscard]] bool present() const { return data_ != nullptr; }
    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] std::byte* data() const { return data_; }

private:
    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

}  // namespace exo
