#include "os-awareness/linux/decompressor.h"

#include <algorithm>
#include <array>
#include <span>

namespace exo::os {
namespace {

// How arch/x86/boot/compressed/head_64.S ends (.Lrelocated): extract_kernel() gives the kernel's entry point
// in RAX, RSI is to be the boot parameters.
//   call extract_kernel ; pop %rsi       ; jmp *%rax     up to 6.0, and in stable kernels of then
//   call extract_kernel ; mov %r15, %rsi ; jmp *%rax     since 8b63cba746f8 (6.1)
constexpr std::byte call_opcode{0xe8};  // and four bytes of distance
constexpr std::size_t call_bytes = 5;
constexpr auto with_pop = std::to_array({std::byte{0x5e}, std::byte{0xff}, std::byte{0xe0}});
constexpr auto with_mov =
    std::to_array({std::byte{0x4c}, std::byte{0x89}, std::byte{0xfe}, std::byte{0xff}, std::byte{0xe0}});
constexpr std::array<std::span<const std::byte>, 2> endings{with_pop, with_mov};
constexpr std::size_t jump_bytes = 2;

std::uint64_t distance(VirtualAddress a, VirtualAddress b) {
    return raw(a) > raw(b) ? raw(a) - raw(b) : raw(b) - raw(a);
}

}  // namespace

std::optional<VirtualAddress> find_jump_to_kernel(ConstBytes code, VirtualAddress start, VirtualAddress pc) {
    std::optional<VirtualAddress> nearest;
    for (const auto ending : endings) {
        for (auto rest = code;;) {
            const auto found = std::ranges::search(rest, ending);
            if (found.empty()) break;
            const auto at = static_cast<std::size_t>(found.data() - code.data());
            const VirtualAddress jump = start + (at + ending.size() - jump_bytes);
            const bool called = at >= call_bytes && code[at - call_bytes] == call_opcode;
            if (called && (!nearest || distance(jump, pc) < distance(*nearest, pc))) nearest = jump;
            rest = code.subspan(at + 1);
        }
    }
    return nearest;
}

}  // namespace exo::os
