// vFile, the host I/O packets (GDB manual, "Host I/O Packets"): requests and their replies. Numbers are hex.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace exo::rsp {

struct OpenFile {  // vFile:open:NAME,FLAGS,MODE
    std::string name;
    std::uint64_t flags = 0;  // as in "Open Flags"
    static std::optional<OpenFile> parse(std::string_view arguments);
    // O_RDONLY without O_CREAT or O_TRUNC. lldb sends flags of its own, of which none is 0 for reading; the
    // low two bits mean the same (lldb/Host/File.h, OpenOptions).
    [[nodiscard]] bool reads_only() const;
};

struct ReadFile {  // vFile:pread:FD,COUNT,OFFSET
    std::uint64_t descriptor = 0;
    std::uint64_t count = 0;
    std::uint64_t offset = 0;
    static std::optional<ReadFile> parse(std::string_view arguments);
};

struct FileDescriptor {  // vFile:close:FD   vFile:fstat:FD
    std::uint64_t descriptor = 0;
    static std::optional<FileDescriptor> parse(std::string_view arguments);
};

struct FileName {  // vFile:readlink:NAME   vFile:stat:NAME
    std::string name;
    static std::optional<FileName> parse(std::string_view arguments);
};

// "Errno Values": numbers of the protocol, not of any system.
enum class FileErrno : std::uint8_t {
    enoent = 2,
    eio = 5,
    ebadf = 9,
    eacces = 13,
    einval = 22,
    emfile = 24,
    erofs = 30
};

std::string file_error(FileErrno error);
std::string file_result(std::uint64_t value);
// With what it found; `data` is escaped by the framing.
std::string file_result(std::string_view data);
// struct stat of a regular file that can be read, as "struct stat" lays it out, big endian.
std::string file_status(std::uint64_t size);

}  // namespace exo::rsp
