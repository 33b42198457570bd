#include "os-awareness/dwarf/cfi.h"

namespace exo::os::cfi {
namespace {

// DWARF 5, table 7.9.
enum ExpressionOp : std::uint8_t {
    op_addr = 0x03,
    op_deref = 0x06,
    op_consts = 0x11,
    op_dup = 0x12,
    op_drop = 0x13,
    op_and = 0x1a,
    op_plus = 0x22,
    op_plus_uconst = 0x23,
    op_bra = 0x28,
    op_gt = 0x2b,
    op_skip = 0x2f,
    op_lit0 = 0x30,
    op_breg0 = 0x70,
};

// DWARF 5, table 7.29.
enum FrameOp : std::uint8_t {
    cfa_nop = 0x00,
    cfa_advance_loc1 = 0x02,
    cfa_advance_loc2 = 0x03,
    cfa_advance_loc4 = 0x04,
    cfa_offset_extended = 0x05,
    cfa_undefined = 0x07,
    cfa_same_value = 0x08,
    cfa_def_cfa = 0x0c,
    cfa_def_cfa_offset = 0x0e,
    cfa_def_cfa_expression = 0x0f,
    cfa_expression = 0x10,
    cfa_offset_extended_sf = 0x11,
    cfa_val_expression = 0x16,
    cfa_advance_loc = 0x40,  // delta in the low 6 bits
    cfa_offset = 0x80,       // register in the low 6 bits
};

constexpr std::uint8_t low_operands = 64;
constexpr std::uint8_t cie_version = 1;
constexpr std::uint32_t cie_id = 0xffff'ffff;  // of .debug_frame; .eh_frame has 0

}  // namespace

Expression& Expression::op(std::uint8_t code) {
    bytes_.u8(code);
    return *this;
}

Expression& Expression::append(const Expression& more) {
    bytes_.append(more.bytes());
    return *this;
}

Expression& Expression::jump(std::uint8_t code, std::size_t distance) {
    op(code);
    bytes_.put(static_cast<std::int16_t>(distance));
    return *this;
}

Expression& Expression::reg(Register base, std::int64_t offset) {
    op(static_cast<std::uint8_t>(op_breg0 + static_cast<std::uint8_t>(base)));
    bytes_.sleb(offset);
    return *this;
}

Expression& Expression::address(VirtualAddress link_time) {
    op(op_addr);
    bytes_.put(raw(link_time));
    return *this;
}

Expression& Expression::add(std::int64_t value) {
    if (value == 0) return *this;
    if (value > 0) {
        op(op_plus_uconst);
        bytes_.uleb(static_cast<std::uint64_t>(value));
        return *this;
    }
    op(op_consts);
    bytes_.sleb(value);
    return op(op_plus);
}

Expression& Expression::deref() { return op(op_deref); }
Expression& Expression::duplicate() { return op(op_dup); }
Expression& Expression::drop() { return op(op_drop); }
Expression& Expression::greater() { return op(op_gt); }

Expression& Expression::mask(unsigned bits) {
    op(static_cast<std::uint8_t>(op_lit0 + (bits & 31)));
    return op(op_and);
}

Expression& Expression::if_else(const Expression& yes, const Expression& no) {
    constexpr std::size_t jump_bytes = 3;
    jump(op_bra, no.bytes_.size() + jump_bytes).append(no);
    return jump(op_skip, yes.bytes_.size()).append(yes);
}

void Instructions::op(std::uint8_t code, std::uint64_t operand) {
    bytes_.u8(code);
    bytes_.uleb(operand);
}

void Instructions::block(const Expression& expression) {
    bytes_.uleb(expression.bytes().size());
    bytes_.append(expression.bytes());
}

void Instructions::advance(std::uint64_t bytes) {
    constexpr std::uint64_t most = 0xffff'ffff;
    for (; bytes > most; bytes -= most) {
        bytes_.u8(cfa_advance_loc4);
        bytes_.put(static_cast<std::uint32_t>(most));
    }
    if (bytes < low_operands) {
        if (bytes != 0) bytes_.u8(cfa_advance_loc | bytes);
    } else if (bytes <= 0xff) {
        bytes_.u8(cfa_advance_loc1);
        bytes_.put(static_cast<std::uint8_t>(bytes));
    } else if (bytes <= 0xffff) {
        bytes_.u8(cfa_advance_loc2);
        bytes_.put(static_cast<std::uint16_t>(bytes));
    } else {
        bytes_.u8(cfa_advance_loc4);
        bytes_.put(static_cast<std::uint32_t>(bytes));
    }
}

void Instructions::def_cfa(Register base, std::int64_t offset) {
    // The operand is unsigned, and the signed form counts in words.
    if (offset < 0) return def_cfa(Expression{}.reg(base, offset));
    op(cfa_def_cfa, base);
    bytes_.uleb(static_cast<std::uint64_t>(offset));
}

void Instructions::def_cfa_offset(std::uint64_t offset) { op(cfa_def_cfa_offset, offset); }

void Instructions::def_cfa(const Expression& value) {
    bytes_.u8(cfa_def_cfa_expression);
    block(value);
}

void Instructions::saved(Register reg, std::int64_t offset) {
    if (offset % data_alignment != 0) return saved_at(reg, Expression{}.add(offset));
    const auto factored = offset / data_alignment;
    if (factored < 0) {
        op(cfa_offset_extended_sf, reg);
        return bytes_.sleb(factored);
    }
    if (static_cast<std::uint8_t>(reg) < low_operands) {
        bytes_.u8(cfa_offset | static_cast<std::uint8_t>(reg));
    } else {
        op(cfa_offset_extended, reg);
    }
    bytes_.uleb(static_cast<std::uint64_t>(factored));
}

void Instructions::saved_at(Register reg, const Expression& address) {
    op(cfa_expression, reg);
    block(address);
}

void Instructions::is(Register reg, const Expression& value) {
    op(cfa_val_expression, reg);
    block(value);
}

void Instructions::same(Register reg) { op(cfa_same_value, reg); }
void Instructions::undefined(Register reg) { op(cfa_undefined, reg); }

void FrameSection::entry(ConstBytes head, ConstBytes instructions) {
    const auto unpadded = head.size() + instructions.size();
    const auto padding = (word_bytes - (unpadded + sizeof(std::uint32_t)) % word_bytes) % word_bytes;
    bytes_.put(static_cast<std::uint32_t>(unpadded + padding));
    bytes_.append(head);
    bytes_.append(instructions);
    for (std::size_t i = 0; i < padding; ++i) bytes_.u8(cfa_nop);
}

FrameSection::Cie FrameSection::add_cie(const Instructions& initial, bool signal) {
    const auto offset = static_cast<Cie>(bytes_.size());
    ByteBuffer head;
    head.put(cie_id);
    head.put(cie_version);
    if (signal) head.u8('S');
    head.u8(0);
    head.uleb(1);  // code alignment
    head.sleb(data_alignment);
    head.u8(static_cast<std::uint8_t>(Register::return_address));
    entry(head.bytes(), initial.bytes());
    return offset;
}

void FrameSection::add_fde(Cie cie, VirtualAddress start, std::uint64_t size,
                           const Instructions& instructions) {
    ByteBuffer head;
    head.put(cie);
    head.put(raw(start));
    head.put(size);
    entry(head.bytes(), instructions.bytes());
}

}  // namespace exo::os::cfi
