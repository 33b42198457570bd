#include "rsp/file_io.h"

#include <array>

#include "rsp/cursor.h"
#include "rsp/hex.h"

namespace exo::rsp {
namespace {

constexpr std::uint64_t access_mode = 0x3;      // O_WRONLY 1, O_RDWR 2
constexpr std::uint64_t create_or_cut = 0x600;  // O_CREAT 0x200, O_TRUNC 0x400

// struct stat, "Integral Datatypes" and "struct stat": bytes of each field, in order.
struct StatField {
    std::size_t bytes;
    std::uint64_t value;
};
constexpr std::uint64_t regular_readable = 0100444;
constexpr std::uint64_t block_bytes = 512;

}  // namespace

std::optional<OpenFile> OpenFile::parse(std::string_view arguments) {
    Cursor cursor(arguments);
    auto name = text_from_hex(cursor.take_until(","));
    if (!name || name->empty() || !cursor.take(',')) return std::nullopt;
    const auto flags = cursor.take_number();
    if (!flags || !cursor.take(',') || !cursor.take_number() || !cursor.done()) return std::nullopt;
    return OpenFile{std::move(*name), *flags};
}

bool OpenFile::reads_only() const { return (flags & (access_mode | create_or_cut)) == 0; }

std::optional<ReadFile> ReadFile::parse(std::string_view arguments) {
    Cursor cursor(arguments);
    const auto descriptor = cursor.take_number();
    if (!descriptor || !cursor.take(',')) return std::nullopt;
    const auto count = cursor.take_number();
    if (!count || !cursor.take(',')) return std::nullopt;
    const auto offset = cursor.take_number();
    if (!offset || !cursor.done()) return std::nullopt;
    return ReadFile{*descriptor, *count, *offset};
}

std::optional<FileDescriptor> FileDescriptor::parse(std::string_view arguments) {
    const auto descriptor = parse_hex_number(arguments);
    if (!descriptor) return std::nullopt;
    return FileDescriptor{*descriptor};
}

std::optional<FileName> FileName::parse(std::string_view arguments) {
    auto name = text_from_hex(arguments);
    if (!name || name->empty()) return std::nullopt;
    return FileName{std::move(*name)};
}

std::string file_error(FileErrno error) {
    std::string reply = "F-1,";
    append_hex_number(reply, static_cast<std::uint64_t>(error));
    return reply;
}

std::string file_result(std::uint64_t value) {
    std::string reply = "F";
    append_hex_number(reply, value);
    return reply;
}

std::string file_result(std::string_view data) {
    std::string reply = file_result(std::uint64_t{data.size()});
    reply += ';';
    return reply += data;
}

std::string file_status(std::uint64_t size) {
    const auto fields = std::to_array<StatField>({
        {4, 0},                                       // st_dev
        {4, 0},                                       // st_ino
        {4, regular_readable},                        // st_mode
        {4, 1},                                       // st_nlink
        {4, 0},                                       // st_uid
        {4, 0},                                       // st_gid
        {4, 0},                                       // st_rdev
        {8, size},                                    // st_size
        {8, block_bytes},                             // st_blksize
        {8, (size + block_bytes - 1) / block_bytes},  // st_blocks
        {4, 0},                                       // st_atime
        {4, 0},                                       // st_mtime
        {4, 0},                                       // st_ctime
    });
    std::string bytes;
    for (const StatField& field : fields) {
        for (std::size_t left = field.bytes; left-- > 0;)
            bytes += static_cast<char>(field.value >> (8 * left));
    }
    return file_result(bytes);
}

}  // namespace exo::rsp
