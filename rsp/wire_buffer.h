// Bytes on their way to a socket. A std::string would clear what it grows by before it is written.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string_view>

namespace exo::rsp {

class WireBuffer {
    struct Release {
        bool owned;
        void operator()(const char* bytes) const {
            if (owned) delete[] bytes;
        }
    };
    using Bytes = std::unique_ptr<char[], Release>;

public:
    WireBuffer() = default;
    // In memory of somebody else, as far as that goes.
    WireBuffer(char* bytes, std::size_t capacity) : bytes_(bytes, Release{false}), capacity_(capacity) {}

    [[nodiscard]] std::string_view view() const { return {bytes_.get(), size_}; }
    [[nodiscard]] std::size_t size() const { return size_; }
    [[nodiscard]] bool empty() const { return size_ == 0; }
    void clear() { size_ = 0; }

    // Room for `most` bytes behind the last, with anything in it; commit() says how many of them count.
    char* prepare(std::size_t most) {
        if (capacity_ - size_ < most) {
            capacity_ = std::max(2 * capacity_, size_ + most);
            Bytes larger{new char[capacity_], Release{true}};
            if (size_ > 0) std::memcpy(larger.get(), bytes_.get(), size_);
            bytes_ = std::move(larger);
        }
        return bytes_.get() + size_;
    }
    void commit(std::size_t count) { size_ += count; }

    void append(std::string_view bytes) {
        if (bytes.empty()) return;
        std::memcpy(prepare(bytes.size()), bytes.data(), bytes.size());
        commit(bytes.size());
    }
    void push_back(char c) { append({&c, 1}); }

private:
    Bytes bytes_{nullptr, Release{true}};
    std::size_t size_ = 0;
    std::size_t capacity_ = 0;
};

}  // namespace exo::rsp
