// Frames of a made machine: what is not in it fails as Xen does.
#pragma once

#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "backends/xen/frames.h"

namespace exo::test {

class FakeFrames final : public xen::FrameMapper {
public:
    using Page = std::array<std::byte, xen::page_bytes>;

    Page& page(std::uint64_t frame) { return frames_[frame]; }
    void remove(std::uint64_t frame) { frames_.erase(frame); }
    void put(std::uint64_t frame, std::size_t offset, std::uint64_t value) {
        std::memcpy(page(frame).data() + offset, &value, sizeof value);
    }
    [[nodiscard]] std::size_t mapped() const { return mappings_.size(); }

    // A copy, which a write goes through only when it ends: enough for one mapping at a time that is written.
    Result<std::byte*> map(std::span<const std::uint64_t> frames, bool writable,
                           std::span<int> errors) override {
        count(frames.size());
        Mapping mapping{.bytes = std::vector<std::byte>(frames.size() * xen::page_bytes)};
        for (std::size_t i = 0; i < frames.size(); ++i) {
            const auto found = frames_.find(frames[i]);
            errors[i] = found == frames_.end() ? -EINVAL : 0;
            if (errors[i] != 0) continue;
            std::memcpy(mapping.bytes.data() + i * xen::page_bytes, found->second.data(), xen::page_bytes);
            if (writable) mapping.writable.emplace_back(i, frames[i]);
        }
        auto* pages = mapping.bytes.data();
        mappings_.emplace(pages, std::move(mapping));
        return pages;
    }
    void unmap(std::byte* pages, std::size_t) override {
        const auto mapping = mappings_.find(pages);
        for (const auto& [index, frame] : mapping->second.writable)
            std::memcpy(frames_[frame].data(), pages + index * xen::page_bytes, xen::page_bytes);
        mappings_.erase(mapping);
    }

private:
    struct Mapping {
        std::vector<std::byte> bytes;
        std::vector<std::pair<std::size_t, std::uint64_t>> writable;
    };
    std::map<std::uint64_t, Page> frames_;
    std::map<std::byte*, Mapping> mappings_;
};

}  // namespace exo::test
