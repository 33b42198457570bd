// Frames of a guest, mapped into this process. Xen maps what is asked for one by one: a call and the change
// of the page tables for each frame are dear, reading what is mapped is not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "backends/api/result.h"

namespace exo::xen {

inline constexpr std::size_t page_bytes = 4096;
inline constexpr unsigned page_shift = 12;
// No frame has that number (xen.h, INVALID_MFN).
inline constexpr std::uint64_t no_frame = ~std::uint64_t{0};

// What reading memory has cost.
struct MappingCosts {
    std::uint64_t calls = 0;
    std::uint64_t frames = 0;
};

// Of one domain. An HVM or PVH guest's frames have the numbers that it counts its memory by, a PV guest's
// those of the machine.
class FrameMapper {
public:
    FrameMapper() = default;
    FrameMapper(const FrameMapper&) = delete;
    FrameMapper& operator=(const FrameMapper&) = delete;
    virtual ~FrameMapper() = default;

    // Consecutive pages here, one for each of `frames`; `errors` (as many) is an errno or 0 for each. Pages
    // with an error must not be touched.
    virtual Result<std::byte*> map(std::span<const std::uint64_t> frames, bool writable,
                                   std::span<int> errors) = 0;
    virtual void unmap(std::byte* pages, std::size_t count) = 0;

    [[nodiscard]] const MappingCosts& costs() const { return costs_; }

protected:
    void count(std::size_t frames) {
        ++costs_.calls;
        costs_.frames += frames;
    }

private:
    MappingCosts costs_;
};

// A mapping that ends with its owner.
class Mapped {
public:
    Mapped() = default;
    Mapped(FrameMapper& mapper, std::byte* pages, std::size_t count)
        : mapper_(&mapper), pages_(pages), count_(count) {}
    Mapped(Mapped&& other) noexcept { swap(other); }
    Mapped& operator=(Mapped&& other) noexcept {
        swap(other);
        return *this;
    }
    Mapped(const Mapped&) = delete;
    Mapped& operator=(const Mapped&) = delete;
    ~Mapped() {
        if (pages_ != nullptr) mapper_->unmap(pages_, count_);
    }

    [[nodiscard]] std::byte* data() const { return pages_; }
    [[nodiscard]] std::size_t size() const { return count_ * page_bytes; }

private:
    void swap(Mapped& other) noexcept {
        std::swap(mapper_, other.mapper_);
        std::swap(pages_, other.pages_);
        std::swap(count_, other.count_);
    }

    FrameMapper* mapper_ = nullptr;
    std::byte* pages_ = nullptr;
    std::size_t count_ = 0;
};

}  // namespace exo::xen
