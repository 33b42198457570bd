// Loaded modules: the ring `modules` of struct module (kernel/module/main.c, before 5.19 kernel/module.c).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "os-awareness/linux/btf.h"
#include "os-awareness/linux/kernel_image.h"
#include "os-awareness/linux/orc.h"
#include "os-awareness/linux/struct_layout.h"
#include "os-awareness/os.h"

namespace exo::os {

// Where struct module and what hangs from it have their fields, by the kernel's own types.
struct ModuleLayout {
    // One of the ranges of struct module.mem (6.4, ac3b43283923), by its index in enum mod_mem_type.
    struct MemoryKind {
        std::string_view section;
        bool executable;
        bool writable;
        bool init;  // freed once the init function has returned
        std::optional<std::uint32_t> index;
    };
    // Before: one block in which code comes first, then constants, then data (7523e4dc5057, 4.5;
    // 444d13ff10fb).
    struct Block {
        Field base, size, text_size, ro_size;
    };

    Field list, name, state, refcount;
    Field kallsyms, num_orcs, orc_ips, orc_entries;
    Field mem;
    std::uint32_t mem_size = 0;  // of one struct module_memory
    Field mem_base, mem_bytes;
    std::array<MemoryKind, 7> mem_kinds{};
    Block core, init;
    struct {
        Field symtab, num_symtab, strtab, typetab;
        std::uint32_t size = 0;
    } symbols;  // struct mod_kallsyms (8244062ef1e5, 4.5)
    struct {
        Field list, module, btf;  // struct btf_module
        Field data, data_size;    // struct btf
    } types;                      // modules have BTF from 5.11 on (36e68442d1af)

    std::uint32_t read_size = 0;  // from the start of a struct module to the end of its last field above
    std::string missing;          // of what is needed to list modules; empty if nothing is

    static ModuleLayout from(const Btf& btf);
};

class ModuleList {
public:
    static constexpr std::size_t max_modules = 8192;

    // `btf` null: no module is found, and problems say so. Both must outlive it.
    ModuleList(KernelImage& image, const Btf* btf);

    // Reads the list; those that are not usable (half loaded, going away) are left out.
    [[nodiscard]] OsAwareness::Modules read();

    // What the file of a module is made of. Addresses that a module gives are a guest's.
    struct Parts {
        SymbolTable symbols;
        OrcLocation orc;             // count 0: none
        std::vector<std::byte> btf;  // split BTF, empty if there is none
        std::vector<std::string> problems;
    };
    // not_found when it is not there any more.
    Result<Parts> parts_of(const Module& module);

private:
    Result<std::vector<std::byte>> read_module(std::uint64_t address);
    std::optional<Module> describe(std::uint64_t address, ConstBytes bytes, std::string& problem) const;
    void add_memory(Module& module, ConstBytes bytes) const;
    void add_block(Module& module, ConstBytes bytes, const ModuleLayout::Block& block, bool init) const;
    Result<SymbolTable> read_symbols(std::uint64_t kallsyms);
    Result<std::vector<std::byte>> read_types(const Module& module);

    KernelImage* image_;
    ModuleLayout layout_;
    std::uint64_t head_ = 0;  // of the ring; 0: not known
    std::string why_not_;
};

}  // namespace exo::os
