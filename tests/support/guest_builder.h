// A Linux guest made of nothing, in fake RAM: image, symbols, banner, page tables. Tests put into it what
// they are about (BTF, tasks) and break it where they want to.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/registers.h"
#include "backends/arch/x86_64.h"
#include "os-awareness/page_tables.h"
#include "tests/support/fake_memory.h"
#include "tests/support/kallsyms_writer.h"

namespace exo::test {

struct GuestOptions {
    x86::PagingMode mode = x86::PagingMode::levels4;
    std::uint64_t slide = 0x1c00'0000;       // of _text against 0xffffffff81000000
    std::uint64_t image_bytes = 8ULL << 20;  // a multiple of 2 MiB
    std::uint64_t leaf_bytes = 2ULL << 20;   // of the image's mapping: 4 KiB or 2 MiB
    // RAM; page tables are at its start, then the image, then the heap.
    PhysicalAddress ram{0};  // a multiple of 1 GiB
    std::uint64_t ram_bytes = 64ULL << 20;
    KallsymsShape kallsyms = kallsyms_of::v6_4;
    std::string release = "6.12.1-test";
    bool data_symbols = true;  // false: as without CONFIG_KALLSYMS_ALL, only those of types T, t, W and w
    bool root_symbol = true;   // init_top_pgt
    std::uint64_t encryption_mask = 0;  // set in every entry
};

class GuestBuilder {
public:
    explicit GuestBuilder(GuestOptions options = {});

    [[nodiscard]] FakeMemory& memory() { return memory_; }
    [[nodiscard]] const GuestOptions& options() const { return options_; }
    [[nodiscard]] PhysicalAddress physical() const;  // of _text
    [[nodiscard]] VirtualAddress text() const;       // _text
    [[nodiscard]] VirtualAddress banner() const { return banner_; }
    [[nodiscard]] PhysicalAddress kernel_root() const { return root_; }
    [[nodiscard]] std::string banner_text() const;  // without the line feed

    // Room in the image, zeroed. With a name it becomes a symbol of that type.
    VirtualAddress in_image(std::uint64_t size, std::uint64_t alignment = 8, std::string_view name = {},
                            char type = 'D');
    // Room in the direct map, zeroed: where tasks, stacks and other allocations are.
    VirtualAddress in_heap(std::uint64_t size, std::uint64_t alignment = 64);
    void symbol(std::uint64_t address, char type, std::string name) {
        symbols_.push_back({address, type, std::move(name)});
    }

    // The guest's bytes by kernel address: image or direct map.
    MutableBytes bytes(VirtualAddress address, std::uint64_t size) {
        return memory_.bytes(physical_of(address), size);
    }
    template <class T>
    void put(VirtualAddress address, const T& value) {
        memory_.put(physical_of(address), value);
    }
    void put_text(VirtualAddress address, std::string_view text) {
        memory_.put_text(physical_of(address), text);
    }
    [[nodiscard]] PhysicalAddress physical_of(VirtualAddress address) const;

    // A page in any top table. `size` is 4 KiB, 2 MiB or 1 GiB. Tables are made as needed.
    void map(PhysicalAddress root, VirtualAddress address, PhysicalAddress physical, std::uint64_t size,
             bool user = false, bool writable = true, bool executable = true);
    // The same leaf, not present.
    void unmap(PhysicalAddress root, VirtualAddress address, std::uint64_t size);
    // The kernel's half of a process: shares the kernel's tables. The page after it is the user's half under
    // KPTI, with nothing of the kernel in it but one page of entry text.
    PhysicalAddress new_process();

    // Writes VMCOREINFO where vmcoreinfo_data points at; before finish(). `text` as the kernel has it.
    void vmcoreinfo(std::string_view text);

    // Writes the tables of symbols; nothing can be added after it. Returns where they are, to break them.
    struct Finished {
        VirtualAddress kallsyms{};
        WrittenKallsyms tables;
    };
    Finished finish();

    // Registers of a vCPU in 64-bit mode. In user mode with KPTI, `cr3` is new_process() + 4096.
    [[nodiscard]] RegisterSet vcpu(PhysicalAddress cr3, bool user = false) const;
    [[nodiscard]] RegisterSet vcpu_in_firmware() const;  // real mode, as after a reset

private:
    [[nodiscard]] VirtualAddress direct_map() const;  // of physical address 0
    PhysicalAddress table();                          // a new page-table page
    void set_leaf(PhysicalAddress root, VirtualAddress address, std::uint64_t size, bool user,
                  std::uint64_t entry);
    std::uint64_t slot(PhysicalAddress table, unsigned shift, VirtualAddress address, bool user);

    GuestOptions options_;
    FakeMemory memory_;
    PhysicalAddress next_table_{};
    std::uint64_t image_used_ = 0;
    std::uint64_t heap_used_ = 0;
    PhysicalAddress root_{};
    VirtualAddress banner_{};
    std::vector<NamedSymbol> symbols_;
};

}  // namespace exo::test
