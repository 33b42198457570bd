// A kernel's loaded modules in a guest's memory: the ring of struct module, what hangs from it, and the types
// that tell where the fields are.
#pragma once

#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "os-awareness/elf/format.h"
#include "os-awareness/linux/btf.h"
#include "os-awareness/linux/kernel_image.h"
#include "os-awareness/linux/list_walk.h"
#include "os-awareness/linux/modules.h"
#include "tests/support/guest_builder.h"

namespace exo::test {

struct ModuleRange {
    std::uint64_t base;
    std::uint32_t size, pad;
};
struct ModuleBlock {
    std::uint64_t base;
    std::uint32_t size, text_size, ro_size, pad;
};
// Of a size and order that no real one has; it has what kernels before 6.4 have, and what those since have.
struct FakeModule {
    std::uint32_t pad0, state;
    os::ListLinks list;
    char name[56];
    ModuleBlock core, init;
    ModuleRange mem[3];  // text, init text, data
    std::uint64_t kallsyms;
    std::uint32_t num_orcs, refcount;
    std::uint64_t orc_ips, orc_entries;
};
struct FakeKallsyms {
    std::uint64_t symtab;
    std::uint32_t num_symtab, pad;
    std::uint64_t strtab, typetab;
};
struct FakeBtfModule {
    os::ListLinks list;
    std::uint64_t btf, module;
};
struct FakeBtf {
    std::uint64_t pad, data;
    std::uint32_t data_size, pad2;
};

// The BTF of a kernel with such modules: with struct module.mem (`ranges`) or the blocks before it.
std::vector<std::byte> module_types(bool ranges);

inline constexpr std::uint64_t tun_text = 0xffff'ffff'c020'0000;

// A kernel with the module `tun`, and those that a test adds.
struct ModuleGuest {
    explicit ModuleGuest(bool ranges = true) : btf(*os::Btf::parse(module_types(ranges))) {
        head = guest.in_heap(sizeof(os::ListLinks));
        btf_head = guest.in_heap(sizeof(os::ListLinks));
        for (const auto at : {head, btf_head}) guest.put(at, os::ListLinks{raw(at), raw(at)});
        image.symbols.add(head, 'd', "modules");
        image.symbols.add(btf_head, 'd', "btf_modules");
        image.symbols.finish();
        image.space =
            std::make_unique<os::PageTables>(guest.memory(), guest.kernel_root(), guest.options().mode);
        tun = add("tun", tun_text);
    }

    VirtualAddress add(std::string_view name, std::uint64_t text) {
        const auto at = guest.in_heap(sizeof(FakeModule));
        FakeModule module{};
        std::memcpy(static_cast<void*>(module.name), name.data(), name.size());
        module.core = {text, 0x5000, 0x2000, 0x3000, 0};
        module.init = {text + 0x8000, 0x1000, 0x1000, 0x1000, 0};
        module.mem[0] = {text, 0x2000, 0};
        module.mem[1] = {text + 0x8000, 0x1000, 0};
        module.mem[2] = {text - 0x10'0000, 0x3000, 0};
        module.refcount = 3;
        guest.put(at, module);
        link(head, at + offsetof(FakeModule, list));
        return at;
    }
    void link(VirtualAddress ring, VirtualAddress node) {  // list_add
        auto first = get<os::ListLinks>(ring);
        guest.put(node, os::ListLinks{first.next, raw(ring)});
        auto after = get<os::ListLinks>(VirtualAddress{first.next});
        after.prev = raw(node);
        guest.put(VirtualAddress{first.next}, after);
        first = get<os::ListLinks>(ring);
        first.next = raw(node);
        guest.put(ring, first);
    }
    template <class T>
    T get(VirtualAddress at) {
        T value{};
        std::memcpy(&value, guest.bytes(at, sizeof value).data(), sizeof value);
        return value;
    }
    template <class Change>
    void edit(VirtualAddress at, Change change) {
        auto module = get<FakeModule>(at);
        change(module);
        guest.put(at, module);
    }
    // Two symbols, seven rows of ORC and types for `tun`.
    struct Filled {
        VirtualAddress entries, names, letters, tables, blob, btf;
    };
    Filled fill_tun() {
        const Filled at{guest.in_heap(3 * sizeof(os::elf::SymbolEntry)),
                        guest.in_heap(4096),
                        guest.in_heap(64),
                        guest.in_heap(sizeof(FakeKallsyms)),
                        guest.in_heap(16),
                        guest.in_heap(sizeof(FakeBtf))};
        guest.put(
            at.entries + sizeof(os::elf::SymbolEntry),
            os::elf::SymbolEntry{.name = 1, .info = 0x12, .section = 1, .value = tun_text + 0x10, .size = 4});
        guest.put(at.entries + 2 * sizeof(os::elf::SymbolEntry),
                  os::elf::SymbolEntry{
                      .name = 14, .info = 0x11, .section = 2, .value = tun_text + 0x3000, .size = 8});
        guest.put_text(at.names + 1, "tun_chr_open");
        guest.put_text(at.names + 14, "tun_count");
        guest.put_text(at.letters, "?td");
        guest.put(at.tables, FakeKallsyms{raw(at.entries), 3, 0, raw(at.names), raw(at.letters)});
        guest.put_text(at.blob, "split BTF");
        guest.put(at.btf, FakeBtf{0, raw(at.blob), 9, 0});
        const auto entry = guest.in_heap(sizeof(FakeBtfModule));
        guest.put(entry, FakeBtfModule{{}, raw(at.btf), raw(tun)});
        link(btf_head, entry);
        edit(tun, [&](FakeModule& m) {
            m.kallsyms = raw(at.tables);
            m.num_orcs = 7;
            m.orc_ips = tun_text + 0x100;
            m.orc_entries = tun_text + 0x200;
        });
        return at;
    }
    os::OsAwareness::Modules read() { return os::ModuleList{image, &btf}.read(); }

    GuestBuilder guest;
    os::Btf btf;
    os::KernelImage image;
    VirtualAddress head{}, btf_head{}, tun{};
};

}  // namespace exo::test
