#include "os-awareness/elf/elf_file.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "os-awareness/elf/format.h"

using namespace exo;
using namespace exo::os;

namespace {

// A kernel as it is linked: text, per-CPU variables at 0, data; a section for each.
struct LinkedKernel {
    elf::FileHeader header;
    std::array<elf::SegmentHeader, 4> segments{
        {{.offset = 0x1000, .address = 0xffffffff81000000, .file_bytes = 0x10, .memory_bytes = 0x1000},
         {.offset = 0x1010, .address = 0, .file_bytes = 0x10, .memory_bytes = 0x10},
         {.offset = 0x1020, .address = 0xffffffff81002000, .file_bytes = 0x10, .memory_bytes = 0x800},
         {.type = elf::segment_note, .offset = 0x1000, .address = 0xffffffff81000000}}};
    std::array<elf::SectionHeader, 4> sections{
        {{},
         {.type = elf::type_progbits,
          .flags = elf::flag_alloc,
          .address = 0xffffffff81000000,
          .size = 0x1000},
         {.type = elf::type_progbits, .flags = elf::flag_alloc, .address = 0, .size = 0x10},
         {.type = elf::type_progbits, .flags = 0, .address = 0, .size = 0x10}}};

    LinkedKernel() {
        header.segments_at = sizeof header;
        header.segments = static_cast<std::uint16_t>(segments.size());
        header.sections_at = header.segments_at + sizeof segments;
        header.sections = static_cast<std::uint16_t>(sections.size());
    }
    [[nodiscard]] std::vector<std::byte> file() const {
        std::vector<std::byte> bytes(sizeof *this);
        std::memcpy(bytes.data(), this, sizeof *this);
        return bytes;
    }
};
static_assert(sizeof(LinkedKernel) ==
              sizeof(elf::FileHeader) + 4 * sizeof(elf::SegmentHeader) + 4 * sizeof(elf::SectionHeader));

ReadFileAt reader_of(const std::vector<std::byte>& file) {
    return [&file](std::uint64_t offset, MutableBytes out) -> Result<std::size_t> {
        if (offset >= file.size()) return std::size_t{0};
        const auto count = std::min<std::uint64_t>(out.size(), file.size() - offset);
        std::copy_n(file.begin() + static_cast<std::ptrdiff_t>(offset), count, out.begin());
        return std::size_t{count};
    };
}

LinkedKernel patched(const LinkedKernel& kernel) {
    auto file = kernel.file();
    const auto patches = patches_for_one_segment(reader_of(file));
    REQUIRE(patches);
    for (const auto& patch : *patches) {
        REQUIRE(patch.offset + patch.bytes.size() <= file.size());
        std::ranges::copy(patch.bytes, file.begin() + static_cast<std::ptrdiff_t>(patch.offset));
    }
    LinkedKernel result;
    std::memcpy(&result, file.data(), sizeof result);
    return result;
}

}  // namespace

TEST_CASE("elf file: one segment of all that moves with the kernel") {
    const auto kernel = patched({});
    CHECK(kernel.segments[0].type == elf::segment_load);
    CHECK(kernel.segments[0].address == 0xffffffff81000000);
    CHECK(kernel.segments[0].memory_bytes == 0x2800);
    CHECK(kernel.segments[0].offset == 0x1000);
    CHECK(kernel.segments[0].file_bytes == 0x30);  // to the end of the last one
    CHECK(kernel.segments[1].type == elf::segment_null);
    CHECK(kernel.segments[2].type == elf::segment_null);
    CHECK(kernel.segments[3].type == elf::segment_note);
    CHECK(kernel.sections[1].type == elf::type_progbits);
    CHECK(kernel.sections[2].type == elf::type_nobits);
    CHECK(kernel.sections[3].type == elf::type_progbits);
}

TEST_CASE("elf file: a file with nothing at kernel addresses stays as it is") {
    LinkedKernel program;
    for (auto& segment : program.segments) segment.address &= 0xffffff;
    const auto file = program.file();
    CHECK(patches_for_one_segment(reader_of(file))->empty());
    // A size that runs over the end of the address space is no segment of the kernel.
    LinkedKernel over;
    for (auto& segment : over.segments) segment.memory_bytes = UINT64_MAX;
    const auto over_file = over.file();
    CHECK(patches_for_one_segment(reader_of(over_file))->empty());
}

TEST_CASE("elf file: what is none has no patches") {
    const std::vector<std::byte> nothing;
    CHECK(patches_for_one_segment(reader_of(nothing)).error().code == Errc::bad_data);
    auto file = LinkedKernel{}.file();
    file.resize(file.size() - 1);
    CHECK(patches_for_one_segment(reader_of(file)).error().message == "an ELF file that is cut off");
}
