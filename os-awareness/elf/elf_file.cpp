#include "os-awareness/elf/elf_file.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <span>

#include "os-awareness/elf/format.h"
#include "os-awareness/symbol_file.h"

namespace exo::os {
namespace {

constexpr std::uint64_t max_notes_bytes = 1U << 20U;
constexpr std::uint64_t kernel_half = 0xffff'8000'0000'0000;

template <class T>
bool read_record(const ReadFileAt& read, std::uint64_t offset, T& record) {
    const auto count = read(offset, std::as_writable_bytes(std::span{&record, 1}));
    return count && *count == sizeof record;
}

// Records of a table, each with its offset in the file.
template <class T>
struct InFile {
    std::uint64_t offset = 0;
    T record;
};

struct Headers {
    std::vector<InFile<elf::SegmentHeader>> segments;
    std::vector<InFile<elf::SectionHeader>> sections;
};

template <class T>
Result<std::vector<InFile<T>>> read_table(const ReadFileAt& read, std::uint64_t at, std::uint64_t count,
                                          std::uint64_t record_bytes) {
    if (count != 0 && record_bytes != sizeof(T)) {
        return fail(Errc::bad_data, "an ELF file with headers of unknown size");
    }
    std::vector<InFile<T>> table;
    for (std::uint64_t i = 0; i < count; ++i) {
        InFile<T> found{at + i * sizeof(T), {}};
        // A linker writes the section headers last: of a file that is cut off some are missing.
        if (!read_record(read, found.offset, found.record)) {
            return fail(Errc::bad_data, "an ELF file that is cut off");
        }
        table.push_back(found);
    }
    return table;
}

Result<Headers> read_headers(const ReadFileAt& read) {
    elf::FileHeader header;
    const elf::FileHeader expected;
    constexpr std::size_t magic_bytes = 4;
    constexpr std::size_t ident_checked = 7;  // magic, class, byte order, version
    const auto same_ident = [&](std::size_t bytes) {
        return std::memcmp(header.ident.data(), expected.ident.data(), bytes) == 0;
    };
    if (!read_record(read, 0, header) || !same_ident(magic_bytes)) {
        return fail(Errc::bad_data, "no ELF file");
    }
    if (!same_ident(ident_checked) || header.machine != expected.machine) {
        return fail(Errc::bad_data, "an ELF file for another machine than x86-64");
    }
    Headers headers;
    headers.segments =
        TRY(read_table<elf::SegmentHeader>(read, header.segments_at, header.segments, header.segment_bytes));
    headers.sections =
        TRY(read_table<elf::SectionHeader>(read, header.sections_at, header.sections, header.section_bytes));
    return headers;
}

std::optional<std::vector<std::byte>> build_id_at(const ReadFileAt& read, std::uint64_t offset,
                                                  std::uint64_t size) {
    if (size > max_notes_bytes) return std::nullopt;
    std::vector<std::byte> notes(size);
    const auto count = read(offset, notes);
    if (!count) return std::nullopt;
    const auto id = find_build_id(ConstBytes{notes}.first(*count));
    if (id.empty()) return std::nullopt;
    return std::vector<std::byte>{id.begin(), id.end()};
}

bool is_load(const elf::SegmentHeader& segment) { return segment.type == elf::segment_load; }

bool is_kernel_load(const elf::SegmentHeader& segment) {
    return is_load(segment) && segment.address >= kernel_half &&
           segment.memory_bytes <= UINT64_MAX - segment.address &&
           segment.file_bytes <= UINT64_MAX - segment.offset;
}

// What the segments at kernel addresses span, in memory and in the file.
struct KernelExtent {
    std::uint64_t start = UINT64_MAX;
    std::uint64_t end = 0;
    std::uint64_t file_end = 0;
};

std::optional<KernelExtent> kernel_extent(const std::vector<InFile<elf::SegmentHeader>>& segments) {
    KernelExtent whole;
    std::uint64_t file_start = UINT64_MAX;
    for (const auto& [at, segment] : segments) {
        if (!is_kernel_load(segment)) continue;
        if (segment.address < whole.start) {
            whole.start = segment.address;
            file_start = segment.offset;
        }
        whole.end = std::max(whole.end, segment.address + segment.memory_bytes);
        whole.file_end = std::max(whole.file_end, segment.offset + segment.file_bytes);
    }
    if (whole.start >= whole.end || file_start > whole.file_end) return std::nullopt;
    return whole;
}

template <class T>
FilePatch patch_of(const InFile<T>& placed) {
    const auto bytes = std::as_bytes(std::span{&placed.record, 1});
    return {placed.offset, {bytes.begin(), bytes.end()}};
}

}  // namespace

Result<std::vector<std::byte>> read_build_id(const ReadFileAt& read) {
    const auto headers = TRY(read_headers(read));
    for (const auto& [at, segment] : headers.segments) {
        if (segment.type != elf::segment_note) continue;
        if (auto id = build_id_at(read, segment.offset, segment.file_bytes)) return std::move(*id);
    }
    for (const auto& [at, section] : headers.sections) {
        if (section.type != elf::type_note) continue;
        if (auto id = build_id_at(read, section.offset, section.size)) return std::move(*id);
    }
    return fail(Errc::not_found, "no build id");
}

Result<std::uint64_t> read_link_address(const ReadFileAt& read) {
    const auto headers = TRY(read_headers(read));
    const auto whole = kernel_extent(headers.segments);
    if (!whole) return fail(Errc::bad_data, "an ELF file without a segment of a kernel");
    return whole->start;
}

Result<std::vector<FilePatch>> patches_for_one_segment(const ReadFileAt& read) {
    auto headers = TRY(read_headers(read));
    const auto whole = kernel_extent(headers.segments);
    std::vector<FilePatch> patches;
    if (!whole) return patches;
    bool have_one = false;
    for (auto& placed : headers.segments) {
        auto& segment = placed.record;
        if (!is_load(segment)) continue;
        // The others are as if they were not there.
        if (have_one || segment.address != whole->start) {
            segment.type = elf::segment_null;
        } else {
            have_one = true;
            segment.file_bytes = whole->file_end - segment.offset;
            segment.memory_bytes = std::max(whole->end - whole->start, segment.file_bytes);
        }
        patches.push_back(patch_of(placed));
    }
    for (auto& placed : headers.sections) {
        auto& section = placed.record;
        const bool inside = section.address >= whole->start && section.address < whole->end;
        if (inside || (section.flags & elf::flag_alloc) == 0 || section.type == elf::type_nobits) continue;
        section.type = elf::type_nobits;
        patches.push_back(patch_of(placed));
    }
    return patches;
}

}  // namespace exo::os
