// The memory of a process that has one library with thread-local variables, of a made-up glibc: what its
// descriptors say, found by DT_HASH.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "os-awareness/elf/format.h"
#include "tests/support/orc_builder.h"

namespace exo::test {

class GlibcProcess {
public:
    static constexpr std::uint64_t start = 0x10000;
    static constexpr std::uint64_t bytes = 0x4000;
    static constexpr VirtualAddress program{0x10000}, library{0x10100}, thread_pointer{0x10200},
        block{0x13000};
    static constexpr std::uint64_t vector = 0x10300, modules = 0x10400, loader = 0x10500;
    static constexpr std::uint64_t module = 2, generation = 5;

    GlibcProcess() {
        put(program + 24, raw(library));  // l_next
        put(program + 16, dynamic);       // l_ld
        put(library + 32, raw(program));  // l_prev
        put(library + 16, dynamic);
        put(library + 40, module);
        put(library + 48, 0);  // NO_TLS_OFFSET
        put(thread_pointer + 8, vector);
        put(VirtualAddress{vector}, generation);
        put(VirtualAddress{vector + 16 * module}, raw(block));
        put(VirtualAddress{loader}, modules);
        put(VirtualAddress{modules}, 8);  // len
        put(VirtualAddress{modules + 16 + 16 * module}, generation);
        put_symbols();
    }

    void put(VirtualAddress where, std::uint64_t value) { space.put(where, value); }

    FlatSpace space{VirtualAddress{start}, bytes};

private:
    static constexpr std::uint64_t dynamic = 0x11000, hash = 0x11100, symbols = 0x11200, names = 0x11600,
                                   descriptors = 0x11c00;

    struct Descriptor {
        std::string_view name;
        std::uint32_t bits, offset;
    };
    static constexpr auto known = std::to_array<Descriptor>({
        {"link_map_l_tls_modid", 64, 40},
        {"link_map_l_tls_offset", 64, 48},
        {"pthread_dtvp", 64, 8},
        {"dtv_dtv", 128, 0},
        {"dtv_t_counter", 64, 0},
        {"dtv_t_pointer_val", 64, 0},
        {"rtld_global__dl_tls_dtv_slotinfo_list", 64, 0},
        {"dtv_slotinfo_list_len", 64, 0},
        {"dtv_slotinfo_list_next", 64, 8},
        {"dtv_slotinfo_list_slotinfo", 128, 16},
        {"dtv_slotinfo_gen", 64, 0},
    });

    void add_symbol(std::uint32_t index, std::string_view name, std::uint64_t value) {
        os::elf::SymbolEntry entry{};
        entry.name = names_end_;
        entry.section = 1;
        entry.value = value;
        space.put(VirtualAddress{symbols + index * sizeof entry}, entry);
        for (const char c : name) space.put(VirtualAddress{names + names_end_++}, c);
        ++names_end_;
    }

    void put_symbols() {
        add_symbol(1, "_rtld_global", loader);
        std::uint32_t index = 2;
        for (const auto& [name, bits, offset] : known) {
            const std::uint64_t where = descriptors + std::uint64_t{16} * index;
            space.put(VirtualAddress{where}, std::array<std::uint32_t, 3>{bits, 1, offset});
            add_symbol(index++, "_thread_db_" + std::string{name}, where);
        }
        // One bucket, whose chain has all symbols.
        space.put(VirtualAddress{hash}, std::array<std::uint32_t, 3>{1, index, 1});
        for (std::uint32_t i = 1; i < index; ++i)
            space.put(VirtualAddress{hash + 12 + std::uint64_t{4} * i}, i + 1 < index ? i + 1 : 0U);
        using Entry = os::elf::DynamicEntry;
        space.put(VirtualAddress{dynamic},
                  std::array{Entry{os::elf::dynamic_hash, hash}, Entry{os::elf::dynamic_symtab, symbols},
                             Entry{os::elf::dynamic_strtab, names}, Entry{os::elf::dynamic_strsz, names_end_},
                             Entry{}});
    }

    std::uint32_t names_end_ = 1;
};

}  // namespace exo::test
