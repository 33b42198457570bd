// Files that vFile serves, to be read only: what the server itself publishes, and files of the guest
// (stub/guest_files.h). A file of the host is one of them only where its user named it on the command line.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/api/memory.h"
#include "os-awareness/elf/elf_file.h"
#include "os-awareness/os.h"
#include "rsp/file_io.h"

namespace exo::stub {

// Bytes behind a descriptor, read where they are asked for: hundreds of megabytes cost no memory.
class FileContent {
public:
    // A file of the host, of the size that it has now. Errors name it.
    static Result<FileContent> open(const std::string& path);
    FileContent(FileContent&& other) noexcept;
    FileContent& operator=(FileContent&& other) noexcept;
    FileContent(const FileContent&) = delete;
    FileContent& operator=(const FileContent&) = delete;
    ~FileContent();

    // Fewer than asked for at the end, none past it.
    [[nodiscard]] Result<std::size_t> read(std::uint64_t offset, MutableBytes out) const;
    [[nodiscard]] std::uint64_t size() const { return size_; }
    // What is read there from now on, whatever the file has: a few bytes.
    void patch(os::FilePatch patch) { patches_.push_back(std::move(patch)); }

protected:
    FileContent(int descriptor, std::uint64_t size) : descriptor_(descriptor), size_(size) {}

    int descriptor_ = -1;
    std::uint64_t size_ = 0;
    std::vector<os::FilePatch> patches_;
};

// Bytes in memory that belong to no heap: a symbol file has tens of megabytes (memfd_create(2)).
class MemoryFile final : public FileContent {
public:
    static Result<MemoryFile> create(const char* name);
    Result<void> append(ConstBytes bytes);

private:
    using FileContent::FileContent;
};

struct PublishedFile {
    std::string path;  // absolute, as a debugger asks for it
    FileContent content;
};

// One that is published, or one of the guest: the bytes of the latter are what the guest has when they are
// asked for.
struct OpenFile {
    OpenFile(std::shared_ptr<const PublishedFile> file) : published(std::move(file)) {}  // NOLINT: is one
    OpenFile(os::FileId file, std::uint64_t of_kernel) : guest(file), generation(of_kernel) {}
    OpenFile(os::Task of, std::uint64_t of_kernel) : memory(std::move(of)), generation(of_kernel) {}

    std::shared_ptr<const PublishedFile> published;  // null: one of the following is meant
    std::optional<os::Task> memory;                  // of that task's process, each byte at its address
    os::FileId guest;
    std::uint64_t generation = 0;  // Machine::os_generation() of the kernel that they are of
    std::string name;              // as the client asked for it
};

// What one client has open. A published file stays what it was while it is open, whatever the guest becomes.
class OpenFiles {
public:
    // gdb keeps the file of each module open as long as it knows the module.
    static constexpr std::size_t most = 512;

    // Nothing when all are in use.
    std::optional<std::uint64_t> open(OpenFile file);
    // Null: no such descriptor.
    [[nodiscard]] const OpenFile* find(std::uint64_t descriptor) const;
    bool close(std::uint64_t descriptor);

private:
    std::vector<std::optional<OpenFile>> files_;
};

}  // namespace exo::stub
