// What is used of ELF for x86-64 (System V gABI, chapters 4 and 5; psABI, 4): records as in the file.
#pragma once

#include <array>
#include <cstdint>

namespace exo::os::elf {

struct FileHeader {  // Elf64_Ehdr
    // Magic, ELFCLASS64, ELFDATA2LSB, EV_CURRENT
    std::array<std::uint8_t, 16> ident{0x7f, 'E', 'L', 'F', 2, 1, 1};
    std::uint16_t type = 2;      // ET_EXEC
    std::uint16_t machine = 62;  // EM_X86_64
    std::uint32_t version = 1;
    std::uint64_t entry = 0;
    std::uint64_t segments_at = 0;
    std::uint64_t sections_at = 0;
    std::uint32_t flags = 0;
    std::uint16_t header_bytes = 64;
    std::uint16_t segment_bytes = 56;
    std::uint16_t segments = 0;
    std::uint16_t section_bytes = 64;
    std::uint16_t sections = 0;
    std::uint16_t section_names = 0;
};
static_assert(sizeof(FileHeader) == 64);

struct SegmentHeader {        // Elf64_Phdr
    std::uint32_t type = 1;   // PT_LOAD
    std::uint32_t flags = 7;  // PF_X | PF_W | PF_R
    std::uint64_t offset = 0;
    std::uint64_t address = 0;
    std::uint64_t physical = 0;
    std::uint64_t file_bytes = 0;
    std::uint64_t memory_bytes = 0;
    std::uint64_t align = 0;
};
static_assert(sizeof(SegmentHeader) == 56);

struct SectionHeader {  // Elf64_Shdr
    std::uint32_t name = 0;
    std::uint32_t type = 0;
    std::uint64_t flags = 0;
    std::uint64_t address = 0;
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
    std::uint32_t link = 0;
    std::uint32_t info = 0;
    std::uint64_t align = 0;
    std::uint64_t entry_size = 0;
};
static_assert(sizeof(SectionHeader) == 64);

struct SymbolEntry {  // Elf64_Sym
    std::uint32_t name = 0;
    std::uint8_t info = 0;  // binding << 4 | type
    std::uint8_t other = 0;
    std::uint16_t section = 0;
    std::uint64_t value = 0;
    std::uint64_t size = 0;
};
static_assert(sizeof(SymbolEntry) == 24);

struct DynamicEntry {  // Elf64_Dyn
    std::uint64_t tag = 0;
    std::uint64_t value = 0;
};

struct NoteHeader {  // Elf64_Nhdr
    std::uint32_t name_bytes = 0;
    std::uint32_t description_bytes = 0;
    std::uint32_t type = 0;
};

// PT_*
inline constexpr std::uint32_t segment_null = 0;
inline constexpr std::uint32_t segment_load = 1;
inline constexpr std::uint32_t segment_note = 4;
inline constexpr std::uint32_t segment_tls = 7;
// SHT_*
inline constexpr std::uint32_t type_progbits = 1;
inline constexpr std::uint32_t type_symtab = 2;
inline constexpr std::uint32_t type_strtab = 3;
inline constexpr std::uint32_t type_note = 7;
inline constexpr std::uint32_t type_nobits = 8;
// SHF_*
inline constexpr std::uint64_t flag_write = 0x1;
inline constexpr std::uint64_t flag_alloc = 0x2;
inline constexpr std::uint64_t flag_execute = 0x4;
inline constexpr std::uint64_t flag_merge = 0x10;
inline constexpr std::uint64_t flag_strings = 0x20;
// SHN_*
inline constexpr std::uint32_t first_reserved_section = 0xff00;
inline constexpr std::uint16_t absolute = 0xfff1;
// STB_*, STT_*
inline constexpr std::uint8_t bind_local = 0;
inline constexpr std::uint8_t bind_global = 1;
inline constexpr std::uint8_t bind_weak = 2;
inline constexpr std::uint8_t symbol_none = 0;
inline constexpr std::uint8_t symbol_object = 1;
inline constexpr std::uint8_t symbol_function = 2;

// DT_*
inline constexpr std::uint64_t dynamic_null = 0;
inline constexpr std::uint64_t dynamic_hash = 4;
inline constexpr std::uint64_t dynamic_strtab = 5;
inline constexpr std::uint64_t dynamic_symtab = 6;
inline constexpr std::uint64_t dynamic_strsz = 10;
inline constexpr std::uint64_t dynamic_gnu_hash = 0x6ffffef5;

inline constexpr std::uint32_t note_gnu_build_id = 3;  // NT_GNU_BUILD_ID of the name "GNU"

}  // namespace exo::os::elf
