#include "backends/kvm/registers.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <optional>

#include "backends/arch/x86_64.h"

namespace exo::kvm {
namespace {

using namespace x86;

// Where in one of KVM's structures a register is.
struct Field {
    RegisterNumber number = 0;
    std::uint16_t offset = 0;  // bytes
    std::uint8_t size = 0;
};

#define EXO_FIELD(structure, number, member) \
    Field { number, offsetof(structure, member), sizeof(structure::member) }

constexpr auto regs_fields = std::to_array<Field>({
    EXO_FIELD(kvm_regs, rax, rax),
    EXO_FIELD(kvm_regs, rbx, rbx),
    EXO_FIELD(kvm_regs, rcx, rcx),
    EXO_FIELD(kvm_regs, rdx, rdx),
    EXO_FIELD(kvm_regs, rsi, rsi),
    EXO_FIELD(kvm_regs, rdi, rdi),
    EXO_FIELD(kvm_regs, rbp, rbp),
    EXO_FIELD(kvm_regs, rsp, rsp),
    EXO_FIELD(kvm_regs, r8, r8),
    EXO_FIELD(kvm_regs, r9, r9),
    EXO_FIELD(kvm_regs, r10, r10),
    EXO_FIELD(kvm_regs, r11, r11),
    EXO_FIELD(kvm_regs, r12, r12),
    EXO_FIELD(kvm_regs, r13, r13),
    EXO_FIELD(kvm_regs, r14, r14),
    EXO_FIELD(kvm_regs, r15, r15),
    EXO_FIELD(kvm_regs, rip, rip),
    EXO_FIELD(kvm_regs, eflags, rflags),
});

#define EXO_SEGMENT(number, segment) \
    Field { number, offsetof(kvm_sregs, segment) + offsetof(kvm_segment, selector), sizeof(std::uint16_t) }
#define EXO_SEGMENT_BASE(number, segment) \
    Field { number, offsetof(kvm_sregs, segment) + offsetof(kvm_segment, base), sizeof(std::uint64_t) }
#define EXO_TABLE_BASE(number, table) \
    Field { number, offsetof(kvm_sregs, table) + offsetof(kvm_dtable, base), sizeof(std::uint64_t) }

constexpr auto sregs_fields = std::to_array<Field>({
    EXO_SEGMENT(cs, cs),
    EXO_SEGMENT(ss, ss),
    EXO_SEGMENT(ds, ds),
    EXO_SEGMENT(es, es),
    EXO_SEGMENT(fs, fs),
    EXO_SEGMENT(gs, gs),
    EXO_SEGMENT(tr_selector, tr),
    EXO_SEGMENT(ldt_selector, ldt),
    EXO_SEGMENT_BASE(fs_base, fs),
    EXO_SEGMENT_BASE(gs_base, gs),
    EXO_SEGMENT_BASE(ss_base, ss),
    EXO_SEGMENT_BASE(ds_base, ds),
    EXO_SEGMENT_BASE(es_base, es),
    EXO_SEGMENT_BASE(cs_base, cs),
    EXO_SEGMENT_BASE(tr_base, tr),
    EXO_TABLE_BASE(gdt_base, gdt),
    EXO_TABLE_BASE(idt_base, idt),
    EXO_FIELD(kvm_sregs, cr0, cr0),
    EXO_FIELD(kvm_sregs, cr2, cr2),
    EXO_FIELD(kvm_sregs, cr3, cr3),
    EXO_FIELD(kvm_sregs, cr4, cr4),
    EXO_FIELD(kvm_sregs, cr8, cr8),
    EXO_FIELD(kvm_sregs, efer, efer),
});

// FXSAVE in 64-bit mode (Intel SDM vol. 1, table 10-2) and, behind the header, the upper halves of ymm.
constexpr auto xsave_fields = [] {
    std::array<Field, 8 + 16 + 16 + 8> fields{};
    std::size_t at = 0;
    const auto add = [&](unsigned number, unsigned offset, unsigned size) {
        fields[at++] = {static_cast<RegisterNumber>(number), static_cast<std::uint16_t>(offset),
                        static_cast<std::uint8_t>(size)};
    };
    add(fctrl, 0, 2);
    add(fstat, 2, 2);
    add(fop, 6, 2);
    add(fioff, 8, 4);
    add(fiseg, 12, 2);
    add(fooff, 16, 4);
    add(foseg, 20, 2);
    add(mxcsr, 24, 4);
    for (unsigned i = 0; i < 8; ++i) add(st0 + i, 32 + 16 * i, 10);
    for (unsigned i = 0; i < 16; ++i) add(xmm0 + i, 160 + 16 * i, 16);
    for (unsigned i = 0; i < 16; ++i) add(ymm0h + i, 576 + 16 * i, 16);
    return fields;
}();
constexpr std::size_t abridged_tag_offset = 4;
constexpr std::size_t first_register_offset = 32;
constexpr std::size_t xstate_bv_offset = 512;
// XSTATE_BV bits of what a restore takes from the area rather than from its initial state.
constexpr std::uint64_t x87_state = 1, sse_state = 2, avx_state = 4;

template <class Fields>
const Field* field_of(const Fields& fields, RegisterNumber number) {
    const auto found = std::ranges::find(fields, number, &Field::number);
    return found == fields.end() ? nullptr : &*found;
}

template <class Fields>
void fill_from(RegisterSet& registers, const Fields& fields, ConstBytes from) {
    for (const auto& field : fields)
        registers.set_bytes(field.number, from.subspan(field.offset, field.size));
}

template <class Fields>
bool put_into(const Fields& fields, MutableBytes to, const RegisterSet& values, RegisterNumber number) {
    const Field* field = field_of(fields, number);
    if (field == nullptr) return false;
    const auto bytes = values.bytes(number);
    const auto place = to.subspan(field->offset, field->size);
    std::ranges::fill(place, std::byte{});
    std::ranges::copy(bytes.first(std::min(place.size(), bytes.size())), place.begin());
    return true;
}

template <class Structure>
ConstBytes bytes_of(const Structure& structure) {
    return std::as_bytes(std::span{&structure, 1});
}

template <class Structure>
MutableBytes writable_bytes_of(Structure& structure) {
    return std::as_writable_bytes(std::span{&structure, 1});
}

// FXSAVE keeps one bit a register: used or empty. The full word tells kinds of numbers apart, which follow
// from the numbers (Intel SDM vol. 1, 8.1.7). Tags are of physical registers, numbers are saved in the order
// of the stack.
std::uint16_t full_tag_word(std::span<const std::byte> area) {
    constexpr unsigned valid = 0, zero = 1, special = 2, empty = 3;
    const auto used = std::to_integer<unsigned>(area[abridged_tag_offset]);
    const unsigned top = std::to_integer<unsigned>(area[3]) >> 3U & 7U;  // fstat bits 11 to 13
    unsigned word = 0;
    for (std::size_t physical = 0; physical < 8; ++physical) {
        unsigned tag = empty;
        if ((used >> physical & 1U) != 0) {
            const auto* at = area.data() + first_register_offset + 16 * ((physical + 8 - top) % 8);
            std::uint64_t mantissa = 0;
            std::uint16_t exponent = 0;
            std::memcpy(&mantissa, at, sizeof mantissa);
            std::memcpy(&exponent, at + sizeof mantissa, sizeof exponent);
            exponent &= 0x7fff;
            const bool normal = mantissa >> 63U != 0;
            if (exponent == 0)
                tag = mantissa == 0 ? zero : special;
            else
                tag = exponent == 0x7fff || !normal ? special : valid;
        }
        word |= tag << (2 * physical);
    }
    return static_cast<std::uint16_t>(word);
}

}  // namespace

Holder holder_of(RegisterNumber number) {
    if (number == k_gs_base) return Holder::msr;
    if (number == ftag || field_of(xsave_fields, number) != nullptr) return Holder::xsave;
    if (field_of(regs_fields, number) != nullptr) return Holder::regs;
    return field_of(sregs_fields, number) != nullptr ? Holder::sregs : Holder::none;
}

void fill_from_regs(RegisterSet& registers, const kvm_regs& regs) {
    fill_from(registers, regs_fields, bytes_of(regs));
}

void fill_from_sregs(RegisterSet& registers, const kvm_sregs& sregs) {
    fill_from(registers, sregs_fields, bytes_of(sregs));
}

void fill_from_xsave(RegisterSet& registers, const XsaveArea& xsave, bool has_avx) {
    fill_from(registers, xsave_fields, xsave);
    registers.set(ftag, full_tag_word(xsave));
    std::uint64_t state = 0;
    std::memcpy(&state, xsave.data() + xstate_bv_offset, sizeof state);
    for (unsigned i = 0; i < 16; ++i) {
        const auto number = static_cast<RegisterNumber>(ymm0h + i);
        if (!has_avx)
            registers.set_unavailable(number);
        else if ((state & avx_state) == 0)
            registers.set(number, 0);  // the initial state
    }
}

bool put_into_regs(kvm_regs& regs, const RegisterSet& values, RegisterNumber number) {
    return put_into(regs_fields, writable_bytes_of(regs), values, number);
}

bool put_into_sregs(kvm_sregs& sregs, const RegisterSet& values, RegisterNumber number) {
    return put_into(sregs_fields, writable_bytes_of(sregs), values, number);
}

bool put_into_xsave(XsaveArea& xsave, const RegisterSet& values, RegisterNumber number) {
    std::byte* const area = xsave.data();
    std::uint64_t state = 0;
    std::memcpy(&state, area + xstate_bv_offset, sizeof state);
    if (number == ftag) {
        const auto word = static_cast<unsigned>(values.get(ftag).value_or(0));
        unsigned used = 0;
        for (unsigned i = 0; i < 8; ++i) used |= (word >> (2 * i) & 3U) != 3U ? 1U << i : 0U;
        area[abridged_tag_offset] = static_cast<std::byte>(used);
        state |= x87_state;
    } else if (!put_into(xsave_fields, xsave, values, number)) {
        return false;
    } else if (number >= ymm0h && number <= ymm15h) {
        state |= avx_state;
    } else if (number >= xmm0 && number <= mxcsr) {
        state |= sse_state;
    } else {
        state |= x87_state;
    }
    std::memcpy(area + xstate_bv_offset, &state, sizeof state);
    return true;
}

}  // namespace exo::kvm
