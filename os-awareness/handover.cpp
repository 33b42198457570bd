#include "os-awareness/handover.h"

#include <algorithm>
#include <vector>

#include "backends/arch/x86_64.h"
#include "os-awareness/linux/decompressor.h"
#include "os-awareness/page_tables.h"

namespace exo::os {
namespace {

constexpr std::uint64_t reach = 512U << 10U;  // the text of a loader
constexpr std::uint64_t page_bytes = 4096;

bool in_kernel_mode(const RegisterSet& vcpu) { return (vcpu.get(x86::cs).value_or(3) & 3U) == 0; }

bool in_long_mode(const RegisterSet& vcpu) { return (vcpu.get(x86::efer).value_or(0) & x86::efer_lma) != 0; }

// What is not mapped there is zeros.
std::vector<std::byte> read_around(AddressSpace& space, std::uint64_t start, std::uint64_t size) {
    std::vector<std::byte> bytes(size);
    for (std::uint64_t at = 0; at < size; at += page_bytes) {
        const auto page = MutableBytes{bytes}.subspan(at, std::min(page_bytes, size - at));
        if (!space.read(VirtualAddress{start + at}, page)) std::ranges::fill(page, std::byte{0});
    }
    return bytes;
}

}  // namespace

bool executes_kernel(const RegisterSet& vcpu) {
    return in_long_mode(vcpu) && x86::in_upper_half(vcpu.get(x86::rip).value_or(0));
}

std::optional<VirtualAddress> find_handover(PhysicalMemory& memory, const RegisterSet& vcpu) {
    const auto pc = vcpu.get(x86::rip), root = vcpu.get(x86::cr3);
    const auto mode = x86::paging_mode(vcpu);
    if (!pc || !root || !mode || !in_long_mode(vcpu) || !in_kernel_mode(vcpu) || executes_kernel(vcpu))
        return std::nullopt;
    PageTables tables{memory, PhysicalAddress{*root}, *mode};
    const std::uint64_t start = (*pc > reach ? *pc - reach : 0) & ~(page_bytes - 1);
    const auto code = read_around(tables, start, 2 * reach);
    return find_jump_to_kernel(code, VirtualAddress{start}, VirtualAddress{*pc});
}

}  // namespace exo::os
