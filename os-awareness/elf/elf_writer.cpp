#include "os-awareness/elf/elf_writer.h"

#include <algorithm>
#include <array>

#include "os-awareness/elf/format.h"

namespace exo::os {
namespace {

constexpr std::uint64_t page_alignment = 0x1000;

// Counts what passes, since offsets were promised before.
class CountingSink final : public ByteSink {
public:
    explicit CountingSink(ByteSink& to) : to_(to) {}

    Result<void> write(ConstBytes bytes) override {
        position_ += bytes.size();
        return to_.write(bytes);
    }
    template <class T>
    Result<void> put(const T& value) {
        return write(std::as_bytes(std::span{&value, 1}));
    }
    Result<void> pad_to(std::uint64_t position) {
        constexpr std::array<std::byte, page_alignment> zeros{};
        while (position_ < position) {
            const auto count = std::min<std::uint64_t>(position - position_, zeros.size());
            CHECK_OK(write(ConstBytes{zeros}.first(count)));
        }
        return {};
    }
    [[nodiscard]] std::uint64_t position() const { return position_; }

private:
    ByteSink& to_;
    std::uint64_t position_ = 0;
};

std::uint64_t aligned(std::uint64_t value, std::uint64_t align) {
    return align <= 1 ? value : (value + align - 1) / align * align;
}

elf::FileHeader file_header(std::uint64_t entry, std::uint64_t sections_at, std::size_t sections) {
    elf::FileHeader header;
    header.entry = entry;
    header.segments_at = sizeof header;
    header.segments = 1;
    header.sections_at = sections_at;
    header.sections = static_cast<std::uint16_t>(sections);
    header.section_names = static_cast<std::uint16_t>(sections - 1);
    return header;
}

// Nothing of it is in the file. Offset and address must be equal modulo the alignment.
elf::SegmentHeader load_segment(std::uint64_t start, std::uint64_t size) {
    return {.offset = start % page_alignment,
            .address = start,
            .physical = start,
            .memory_bytes = size,
            .align = page_alignment};
}

elf::SectionHeader section_header(const ElfSection& section, std::uint32_t name, std::uint64_t offset) {
    return {.name = name,
            .type = section.type,
            .flags = section.flags,
            .address = section.address,
            .offset = offset,
            .size = section.content.size,
            .link = section.link,
            .info = section.info,
            .align = section.align,
            .entry_size = section.entry_size};
}

}  // namespace

SectionContent content_of(ConstBytes bytes) {
    return {bytes.size(), [bytes](ByteSink& sink) { return sink.write(bytes); }};
}

std::uint32_t ElfWriter::add(ElfSection section) {
    sections_.push_back(std::move(section));
    return static_cast<std::uint32_t>(sections_.size());
}

Result<void> ElfWriter::write(ByteSink& sink) const {
    if (sections_.size() + 2 >= elf::first_reserved_section) {
        return fail(Errc::unsupported, "an ELF file of " + std::to_string(sections_.size()) + " sections");
    }
    // Content first, in the order of the sections, then their names, then their headers.
    std::string names(1, '\0');
    std::vector<elf::SectionHeader> headers{elf::SectionHeader{}};
    std::uint64_t at = sizeof(elf::FileHeader) + sizeof(elf::SegmentHeader);
    for (const auto& section : sections_) {
        const bool in_file = section.type != elf::type_nobits;
        if (in_file) at = aligned(at, section.align);
        headers.push_back(section_header(section, static_cast<std::uint32_t>(names.size()), at));
        names.append(section.name).push_back('\0');
        if (in_file) at += section.content.size;
    }
    const ElfSection name_section{.name = ".shstrtab", .type = elf::type_strtab, .content = {}};
    headers.push_back(section_header(name_section, static_cast<std::uint32_t>(names.size()), at));
    names.append(name_section.name).push_back('\0');
    headers.back().size = names.size();
    const auto headers_at = aligned(at + names.size(), 8);

    CountingSink out{sink};
    CHECK_OK(out.put(file_header(segment_start_, headers_at, headers.size())));
    CHECK_OK(out.put(load_segment(segment_start_, segment_size_)));
    for (std::size_t i = 0; i < sections_.size(); ++i) {
        if (sections_[i].type == elf::type_nobits || sections_[i].content.size == 0) continue;
        CHECK_OK(out.pad_to(headers[i + 1].offset));
        CHECK_OK(sections_[i].content.write(out));
        if (out.position() != headers[i + 1].offset + sections_[i].content.size) {
            return fail(Errc::bad_data, "section " + sections_[i].name + " is not of the size that was said");
        }
    }
    CHECK_OK(out.pad_to(at));
    CHECK_OK(out.write(std::as_bytes(std::span{names})));
    CHECK_OK(out.pad_to(headers_at));
    return out.write(std::as_bytes(std::span{headers}));
}

}  // namespace exo::os
