// Files that vFile serves: only what the server itself publishes, to be read only. No path of the host ever
// is.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/memory.h"
#include "rsp/file_io.h"

namespace exo::stub {

// Bytes in memory that belong to no heap: a symbol file has tens of megabytes (memfd_create(2)).
class MemoryFile {
public:
    static Result<MemoryFile> create(const char* name);
    MemoryFile(MemoryFile&& other) noexcept;
    MemoryFile& operator=(MemoryFile&& other) noexcept;
    MemoryFile(const MemoryFile&) = delete;
    MemoryFile& operator=(const MemoryFile&) = delete;
    ~MemoryFile();

    Result<void> append(ConstBytes bytes);
    // Fewer than asked for at the end, none past it.
    [[nodiscard]] Result<std::size_t> read(std::uint64_t offset, MutableBytes out) const;
    [[nodiscard]] std::uint64_t size() const { return size_; }

private:
    explicit MemoryFile(int descriptor) : descriptor_(descriptor) {}

    int descriptor_ = -1;
    std::uint64_t size_ = 0;
};

struct PublishedFile {
    std::string path;  // absolute, as a debugger asks for it
    MemoryFile content;
};

// What one client has open. A file stays what it was while it is open, whatever the guest becomes.
class OpenFiles {
public:
    // gdb keeps the file of each module open as long as it knows the module.
    static constexpr std::size_t most = 512;

    // Nothing when all are in use.
    std::optional<std::uint64_t> open(std::shared_ptr<const PublishedFile> file);
    // Null: no such descriptor.
    [[nodiscard]] const PublishedFile* find(std::uint64_t descriptor) const;
    bool close(std::uint64_t descriptor);

private:
    std::vector<std::shared_ptr<const PublishedFile>> files_;
};

}  // namespace exo::stub
