// Call frame information as .debug_frame has it: DWARF 5, section 6.4 (the opcodes are those of DWARF 3),
// 32-bit format, CIE version 1. Knows bytes only: which rows a kernel needs is for others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "os-awareness/elf/byte_buffer.h"

namespace exo::os::cfi {

// DWARF numbers of x86-64 (System V psABI, figure 3.36).
enum class Register : std::uint8_t {
    rax = 0,
    rdx = 1,
    rcx = 2,
    rbx = 3,
    rsi = 4,
    rdi = 5,
    rbp = 6,
    rsp = 7,
    r8 = 8,
    r9 = 9,
    r10 = 10,
    r11 = 11,
    r12 = 12,
    r13 = 13,
    r14 = 14,
    r15 = 15,
    return_address = 16,
    rflags = 49,
};

inline constexpr int word_bytes = 8;
// Slots are counted in words downwards from the CFA: the factor that each CIE declares.
inline constexpr int data_alignment = -word_bytes;

using Bytes = std::vector<std::byte>;

// DWARF expression (section 2.5), without branches of its own: see if_else().
class Expression {
public:
    Expression& reg(Register base, std::int64_t offset);  // pushes base + offset
    Expression& address(VirtualAddress link_time);        // debuggers add the load offset
    Expression& add(std::int64_t value);
    Expression& deref();
    Expression& duplicate();
    Expression& drop();
    Expression& mask(unsigned bits);  // bits < 32
    Expression& greater();            // signed, as DWARF compares: kernel addresses are all negative
    // Pops a condition; goes on with one of the two.
    Expression& if_else(const Expression& yes, const Expression& no);

    [[nodiscard]] ConstBytes bytes() const { return bytes_.bytes(); }

private:
    Expression& op(std::uint8_t code);
    Expression& jump(std::uint8_t code, std::size_t distance);
    Expression& append(const Expression& more);

    ByteBuffer bytes_;
};

// The instructions of a CIE or an FDE.
class Instructions {
public:
    void advance(std::uint64_t bytes);
    void def_cfa(Register base, std::int64_t offset);
    void def_cfa_offset(std::uint64_t offset);
    void def_cfa(const Expression& value);
    // Saved at CFA + `offset`.
    void saved(Register reg, std::int64_t offset);
    void saved_at(Register reg, const Expression& address);  // the CFA is on the stack when it begins
    void is(Register reg, const Expression& value);          // likewise
    void same(Register reg);
    void undefined(Register reg);

    [[nodiscard]] ConstBytes bytes() const { return bytes_.bytes(); }
    void clear() { bytes_.clear(); }

private:
    void op(std::uint8_t code, std::uint64_t operand);
    void op(std::uint8_t code, Register reg) { op(code, static_cast<std::uint64_t>(reg)); }
    void block(const Expression& expression);

    ByteBuffer bytes_;
};

class FrameSection {
public:
    using Cie = std::uint32_t;  // its offset

    // `signal`: of a frame that was interrupted rather than called, so that its caller's pc is exact ('S').
    Cie add_cie(const Instructions& initial, bool signal);
    void add_fde(Cie cie, VirtualAddress start, std::uint64_t size, const Instructions& instructions);

    [[nodiscard]] std::size_t size() const { return bytes_.size(); }
    [[nodiscard]] Bytes take() { return bytes_.take(); }

private:
    void entry(ConstBytes head, ConstBytes instructions);

    ByteBuffer bytes_;
};

}  // namespace exo::os::cfi
