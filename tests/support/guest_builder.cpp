#include "tests/support/guest_builder.h"

#include <algorithm>
#include <stdexcept>

namespace exo::test {
namespace {

constexpr std::uint64_t page_bytes = 4096;
constexpr std::uint64_t large_bytes = 2ULL << 20;
constexpr std::uint64_t link_address = 0xffff'ffff'8100'0000;
// Documentation/arch/x86/x86_64/mm.rst
constexpr std::uint64_t direct_map_4 = 0xffff'8880'0000'0000;
constexpr std::uint64_t direct_map_5 = 0xff11'0000'0000'0000;

constexpr std::uint64_t present = 1;
constexpr std::uint64_t writable_bit = 2;
constexpr std::uint64_t user_bit = 4;
constexpr std::uint64_t accessed_dirty = 0x60;
constexpr std::uint64_t large = 0x80;
constexpr std::uint64_t no_execute = 1ULL << 63;
constexpr std::uint64_t address_mask = 0x000f'ffff'ffff'f000;

constexpr std::uint64_t tables_offset = 0x10'0000;  // from the start of RAM
constexpr std::uint64_t image_offset = 0x280'0000;

constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t to) { return (value + to - 1) / to * to; }

bool is_code(char type) { return type == 'T' || type == 't' || type == 'W' || type == 'w'; }

}  // namespace

GuestBuilder::GuestBuilder(GuestOptions options) : options_(std::move(options)) {
    memory_.add_ram(options_.ram, options_.ram_bytes);
    next_table_ = options_.ram + tables_offset;
    symbol(raw(text()), 'T', "_text");
    symbol(raw(text()), 'T', "_stext");
    in_image(page_bytes);
    const auto root = in_image(2 * page_bytes, 2 * page_bytes, options_.root_symbol ? "init_top_pgt" : "");
    root_ = physical_of(root);
    banner_ = in_image(256, 64, "linux_banner");
    put_text(banner_, banner_text() + "\n");
    for (std::uint64_t at = 0; at < options_.image_bytes; at += options_.leaf_bytes) {
        map(root_, text() + at, physical() + at, options_.leaf_bytes);
    }
    for (std::uint64_t at = 0; at < options_.ram_bytes; at += large_bytes) {
        map(root_, direct_map() + raw(options_.ram) + at, options_.ram + at, large_bytes, false, true, false);
    }
}

PhysicalAddress GuestBuilder::physical() const { return options_.ram + image_offset; }

VirtualAddress GuestBuilder::direct_map() const {
    return VirtualAddress{options_.mode == x86::PagingMode::levels5 ? direct_map_5 : direct_map_4};
}

VirtualAddress GuestBuilder::text() const { return VirtualAddress{link_address + options_.slide}; }

std::string GuestBuilder::banner_text() const {
    return "Linux version " + options_.release + " (builder@test) (gcc 12) #1 SMP";
}

PhysicalAddress GuestBuilder::physical_of(VirtualAddress address) const {
    if (raw(address) >= raw(text()) && raw(address) < raw(text()) + options_.image_bytes) {
        return physical() + (raw(address) - raw(text()));
    }
    return PhysicalAddress{raw(address) - raw(direct_map())};
}

VirtualAddress GuestBuilder::in_image(std::uint64_t size, std::uint64_t alignment, std::string_view name,
                                      char type) {
    const std::uint64_t at = align_up(image_used_, alignment);
    image_used_ = at + size;
    if (image_used_ > options_.image_bytes) throw std::length_error("the test's kernel image is full");
    if (!name.empty()) symbol(raw(text()) + at, type, std::string{name});
    return text() + at;
}

VirtualAddress GuestBuilder::in_heap(std::uint64_t size, std::uint64_t alignment) {
    const std::uint64_t first = raw(physical()) + options_.image_bytes;
    const std::uint64_t at = align_up(first + heap_used_, alignment);
    heap_used_ = at + size - first;
    if (at + size > raw(options_.ram) + options_.ram_bytes)
        throw std::length_error("the test's heap is full");
    return direct_map() + at;
}

PhysicalAddress GuestBuilder::table() {
    const auto at = next_table_;
    next_table_ = next_table_ + page_bytes;
    if (raw(at) + page_bytes > raw(physical())) throw std::length_error("the test's page tables are full");
    return at;
}

std::uint64_t GuestBuilder::slot(PhysicalAddress in, unsigned shift, VirtualAddress address, bool user) {
    const std::uint64_t at = raw(in) + (raw(address) >> shift & 511) * 8;
    std::uint64_t entry = 0;
    std::ranges::copy(memory_.bytes(PhysicalAddress{at}, 8),
                      std::as_writable_bytes(std::span{&entry, 1}).begin());
    if ((entry & present) == 0) {
        entry = raw(table()) | present | writable_bit | accessed_dirty | options_.encryption_mask;
    }
    if (user) entry |= user_bit;
    memory_.put(PhysicalAddress{at}, entry);
    return entry & address_mask & ~options_.encryption_mask;
}

void GuestBuilder::map(PhysicalAddress root, VirtualAddress address, PhysicalAddress physical,
                       std::uint64_t size, bool user, bool writable, bool executable) {
    std::uint64_t entry = raw(physical) | present | accessed_dirty | options_.encryption_mask;
    if (size != page_bytes) entry |= large;
    if (writable) entry |= writable_bit;
    if (user) entry |= user_bit;
    if (!executable) entry |= no_execute;
    set_leaf(root, address, size, user, entry);
}

void GuestBuilder::unmap(PhysicalAddress root, VirtualAddress address, std::uint64_t size) {
    set_leaf(root, address, size, false, 0);
}

void GuestBuilder::set_leaf(PhysicalAddress root, VirtualAddress address, std::uint64_t size, bool user,
                            std::uint64_t entry) {
    const unsigned leaf_shift = size == page_bytes ? 12 : size == large_bytes ? 21 : 30;
    PhysicalAddress in = root;
    for (unsigned shift = options_.mode == x86::PagingMode::levels5 ? 48 : 39; shift > leaf_shift;
         shift -= 9) {
        in = PhysicalAddress{slot(in, shift, address, user)};
    }
    memory_.put(in + (raw(address) >> leaf_shift & 511) * 8, entry);
}

PhysicalAddress GuestBuilder::new_process() {
    next_table_ = PhysicalAddress{align_up(raw(next_table_), 2 * page_bytes)};
    const PhysicalAddress kernel = table();
    const PhysicalAddress user = table();
    std::ranges::copy(memory_.bytes(root_ + page_bytes / 2, page_bytes / 2),
                      memory_.bytes(kernel + page_bytes / 2, page_bytes / 2).begin());
    map(user, text() + large_bytes, physical() + large_bytes, page_bytes);
    return kernel;
}

void GuestBuilder::vmcoreinfo(std::string_view info) {
    const auto page = in_heap(page_bytes, page_bytes);
    put_text(page, info);
    const auto pointer = in_image(8, 8, "vmcoreinfo_data", 'B');
    put(pointer, raw(page));
}

GuestBuilder::Finished GuestBuilder::finish() {
    symbol(raw(text()) + options_.image_bytes, 'B', "_end");
    // Markers need several times 256 symbols.
    for (int i = 0; i < 1500; ++i) {
        symbol(raw(text()) + 64 + static_cast<std::uint64_t>(i) * 2, 't',
               "some_function_" + std::to_string(i));
    }
    std::vector<NamedSymbol> kept = symbols_;
    if (!options_.data_symbols) std::erase_if(kept, [](const NamedSymbol& s) { return !is_code(s.type); });
    const auto at = in_image(0, 8);
    Finished finished{at, write_kallsyms(options_.kallsyms, std::move(kept), raw(text()), at)};
    const auto room = in_image(finished.tables.bytes.size(), 1);
    std::ranges::copy(finished.tables.bytes, bytes(room, finished.tables.bytes.size()).begin());
    return finished;
}

RegisterSet GuestBuilder::vcpu(PhysicalAddress cr3, bool user) const {
    RegisterSet registers{x86::layout()};
    registers.set(x86::cr0, x86::cr0_pg | x86::cr0_pe | 0x50032);
    registers.set(x86::cr3, raw(cr3) | options_.encryption_mask);
    registers.set(x86::cr4, x86::cr4_pae | (options_.mode == x86::PagingMode::levels5 ? x86::cr4_la57 : 0));
    registers.set(x86::efer, x86::efer_lma | 0x901);
    registers.set(x86::cs, user ? 0x33 : 0x10);
    registers.set(x86::rip, user ? 0x40'1000 : raw(text()) + 0x100);
    return registers;
}

RegisterSet GuestBuilder::vcpu_in_firmware() const {
    RegisterSet registers{x86::layout()};
    registers.set(x86::cr0, 0x6000'0010);
    registers.set(x86::cr3, 0);
    registers.set(x86::cr4, 0);
    registers.set(x86::efer, 0);
    registers.set(x86::cs, 0xf000);
    registers.set(x86::rip, 0xfff0);
    return registers;
}

}  // namespace exo::test
