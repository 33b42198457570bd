#include "os-awareness/dwarf/cfi.h"

#include <array>
#include <bit>

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

template <class T>
void append_number(Bytes& out, T value) {
    static_assert(std::endian::native == std::endian::little);
    const auto bytes = std::bit_cast<std::array<std::byte, sizeof(T)>>(value);
    out.insert(out.end(), bytes.begin(), bytes.end());
}

void append_bytes(Bytes& out, const Bytes& more) { out.insert(out.end(), more.begin(), more.end()); }

}  // namespace

void append_uleb128(Bytes& out, std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) out.push_back(static_cast<std::byte>(value | 0x80));
    out.push_back(static_cast<std::byte>(value));
}

void append_sleb128(Bytes& out, std::int64_t value) {
    for (; value < -0x40 || value >= 0x40; value >>= 7) out.push_back(static_cast<std::byte>(value | 0x80));
    out.push_back(static_cast<std::byte>(value & 0x7f));
}

Expression& Expression::op(std::uint8_t code) {
    bytes_.push_back(std::byte{code});
    return *this;
}

Expression& Expression::append(const Bytes& more) {
    append_bytes(bytes_, more);
    return *this;
}

Expression& Expression::jump(std::uint8_t code, std::size_t distance) {
    op(code);
    append_number(bytes_, static_cast<std::int16_t>(distance));
    return *this;
}

Expression& Expression::reg(Register base, std::int64_t offset) {
    op(static_cast<std::uint8_t>(op_breg0 + static_cast<std::uint8_t>(base)));
    append_sleb128(bytes_, offset);
    return *this;
}

Expression& Expression::address(VirtualAddress link_time) {
    op(op_addr);
    append_number(bytes_, raw(link_time));
    return *this;
}

Expression& Expression::add(std::int64_t value) {
    if (value == 0) return *this;
    if (value > 0) {
        op(op_plus_uconst);
        append_uleb128(bytes_, static_cast<std::uint64_t>(value));
        return *this;
    }
    op(op_consts);
    append_sleb128(bytes_, value);
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
    jump(op_bra, no.bytes_.size() + jump_bytes).append(no.bytes_);
    return jump(op_skip, yes.bytes_.size()).append(yes.bytes_);
}

void Instructions::op(std::uint8_t code, std::uint64_t operand) {
    bytes_.push_back(std::byte{code});
    append_uleb128(bytes_, operand);
}

void Instructions::block(const Expression& expression) {
    append_uleb128(bytes_, expression.bytes().size());
    append_bytes(bytes_, expression.bytes());
}

void Instructions::advance(std::uint64_t bytes) {
    constexpr std::uint64_t most = 0xffff'ffff;
    for (; bytes > most; bytes -= most) {
        bytes_.push_back(std::byte{cfa_advance_loc4});
        append_number(bytes_, static_cast<std::uint32_t>(most));
    }
    if (bytes < low_operands) {
        if (bytes != 0) bytes_.push_back(static_cast<std::byte>(cfa_advance_loc | bytes));
    } else if (bytes <= 0xff) {
        bytes_.push_back(std::byte{cfa_advance_loc1});
        append_number(bytes_, static_cast<std::uint8_t>(bytes));
    } else if (bytes <= 0xffff) {
        bytes_.push_back(std::byte{cfa_advance_loc2});
        append_number(bytes_, static_cast<std::uint16_t>(bytes));
    } else {
        bytes_.push_back(std::byte{cfa_advance_loc4});
        append_number(bytes_, static_cast<std::uint32_t>(bytes));
    }
}

void Instructions::def_cfa(Register base, std::int64_t offset) {
    // The operand is unsigned, and the signed form counts in words.
    if (offset < 0) return def_cfa(Expression{}.reg(base, offset));
    op(cfa_def_cfa, base);
    append_uleb128(bytes_, static_cast<std::uint64_t>(offset));
}

void Instructions::def_cfa_offset(std::uint64_t offset) { op(cfa_def_cfa_offset, offset); }

void Instructions::def_cfa(const Expression& value) {
    bytes_.push_back(std::byte{cfa_def_cfa_expression});
    block(value);
}

void Instructions::saved(Register reg, std::int64_t offset) {
    if (offset % data_alignment != 0) return saved_at(reg, Expression{}.add(offset));
    const auto factored = offset / data_alignment;
    if (factored < 0) {
        op(cfa_offset_extended_sf, reg);
        return append_sleb128(bytes_, factored);
    }
    if (static_cast<std::uint8_t>(reg) < low_operands) {
        bytes_.push_back(static_cast<std::byte>(cfa_offset | static_cast<std::uint8_t>(reg)));
    } else {
        op(cfa_offset_extended, reg);
    }
    append_uleb128(bytes_, static_cast<std::uint64_t>(factored));
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

void FrameSection::entry(const Bytes& head, const Bytes& instructions) {
    const auto unpadded = head.size() + instructions.size();
    const auto padding = (word_bytes - (unpadded + sizeof(std::uint32_t)) % word_bytes) % word_bytes;
    append_number(bytes_, static_cast<std::uint32_t>(unpadded + padding));
    append_bytes(bytes_, head);
    append_bytes(bytes_, instructions);
    bytes_.insert(bytes_.end(), padding, std::byte{cfa_nop});
}

FrameSection::Cie FrameSection::add_cie(const Instructions& initial, bool signal) {
    const auto offset = static_cast<Cie>(bytes_.size());
    Bytes head;
    append_number(head, cie_id);
    append_number(head, cie_version);
    if (signal) head.push_back(std::byte{'S'});
    head.push_back(std::byte{0});
    append_uleb128(head, 1);  // code alignment
    append_sleb128(head, data_alignment);
    head.push_back(static_cast<std::byte>(Register::return_address));
    entry(head, initial.bytes());
    return offset;
}

void FrameSection::add_fde(Cie cie, VirtualAddress start, std::uint64_t size,
                           const Instructions& instructions) {
    Bytes head;
    append_number(head, cie);
    append_number(head, raw(start));
    append_number(head, size);
    entry(head, instructions.bytes());
}

}  // namespace exo::os::cfi
