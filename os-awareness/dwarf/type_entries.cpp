// What each kind of BTF is as a debugging entry.
#include <algorithm>
#include <array>

#include "os-awareness/dwarf/constants.h"
#include "os-awareness/dwarf/type_writer.h"

namespace exo::os::dwarf {
namespace {

// Debuggers know a character by its encoding; BTF says so of few (pahole leaves BTF_INT_CHAR out).
Encoding encoding_of(const BtfInteger& integer, std::string_view name) {
    if (integer.is_bool) return Encoding::boolean;
    const bool character =
        integer.is_char || name == "char" || name == "signed char" || name == "unsigned char";
    if (character) return integer.is_signed ? Encoding::signed_char : Encoding::unsigned_char;
    return integer.is_signed ? Encoding::signed_ : Encoding::unsigned_;
}

}  // namespace

void TypeWriter::write(const BtfType& type, bool declared) {
    switch (type.kind) {
        case BtfKind::integer:
        case BtfKind::floating: return write_integer(type);
        case BtfKind::pointer: return write_reference(type, Shape::pointer, Shape::pointer_void, true);
        case BtfKind::const_: return write_reference(type, Shape::const_type, Shape::const_void, declared);
        case BtfKind::volatile_:
            return write_reference(type, Shape::volatile_type, Shape::volatile_void, declared);
        case BtfKind::restrict_:
            return write_reference(type, Shape::restrict_type, Shape::restrict_void, declared);
        case BtfKind::typedef_: return write_reference(type, Shape::typedef_type, Shape::typedef_void, false);
        case BtfKind::array: return write_array(type);
        case BtfKind::structure:
        case BtfKind::union_:
            if (declared) return write_declaration(type, type.kind == BtfKind::union_);
            return write_composite(type);
        case BtfKind::forward: return write_declaration(type, type.flag);
        case BtfKind::enum32:
        case BtfKind::enum64: return write_enumeration(type);
        case BtfKind::function_prototype: return write_prototype(type);
        // usable() lets none of these through.
        case BtfKind::type_tag:
        case BtfKind::function:
        case BtfKind::variable:
        case BtfKind::data_section:
        case BtfKind::decl_tag: return;
    }
}

void TypeWriter::write_integer(const BtfType& type) {
    put(Shape::base_type);
    put_name(type.name);
    const auto encoding = type.kind == BtfKind::floating ? Encoding::floating
                                                         : encoding_of(btf_.integer(type), btf_.name(type));
    info_.u8(static_cast<std::uint8_t>(encoding));
    // The kernel allows 16 (btf_int_check_meta).
    info_.u8(std::min<std::uint32_t>(type.size_or_type, 16));
}

void TypeWriter::write_reference(const BtfType& type, Shape with_type, Shape without, bool pointed) {
    const auto target = usable(type.size_or_type);
    put(target != 0 ? with_type : without);
    if (type.kind == BtfKind::typedef_) put_name(type.name);
    if (target != 0) reference(target, pointed);
}

void TypeWriter::write_array(const BtfType& type) {
    const auto array = btf_.array(type);
    put(Shape::array);
    reference(usable(array.element));
    // BTF has no difference between [0] and [].
    put(array.count != 0 ? Shape::subrange : Shape::subrange_open);
    if (array.count != 0) info_.uleb(array.count);
    put(Shape::end);
}

void TypeWriter::write_composite(const BtfType& type) {
    const bool is_union = type.kind == BtfKind::union_;
    if (named(type)) {
        put(is_union ? Shape::union_ : Shape::structure);
        put_name(type.name);
    } else {
        put(is_union ? Shape::union_anonymous : Shape::structure_anonymous);
    }
    info_.uleb(type.size_or_type);
    for (std::uint32_t i = 0; i < type.count; ++i) write_member(type, btf_.member(type, i));
    put(Shape::end);
}

void TypeWriter::write_member(const BtfType& composite, const BtfMember& member) {
    const auto type = usable(member.type);
    if (type == 0) return;
    auto bits = std::uint32_t{member.bitfield_size};
    auto bit_offset = std::uint64_t{member.bit_offset};
    const auto resolved = btf_.resolve(type);
    if (!composite.flag && resolved && resolved->kind == BtfKind::integer) {
        // Before kind_flag (4.20, 9d5f9f701b18) a bitfield's type was an integer of that many bits.
        const auto integer = btf_.integer(*resolved);
        if (integer.bits != 0 && integer.bits < resolved->size_or_type * 8) {
            bits = integer.bits;
            bit_offset += integer.bit_offset;
        }
    }
    const bool has_name = !btf_.string(member.name).empty();
    if (bits != 0) {
        put(has_name ? Shape::bitfield : Shape::bitfield_anonymous);
    } else {
        put(has_name ? Shape::member : Shape::member_anonymous);
    }
    if (has_name) put_name(member.name);
    reference(type);
    if (bits != 0) info_.uleb(bits);
    info_.uleb(bits != 0 ? bit_offset : bit_offset / 8);
}

// The flag came with enum64 (6089fb325cf7, 6.0); before, no enumeration has it and values are just 32 bits.
bool TypeWriter::is_signed_enumeration(const BtfType& type) const {
    if (type.flag || type.kind != BtfKind::enum32 || has_signed_enumerations_) return type.flag;
    constexpr std::int64_t minus_4095 = 0xffff'f001;  // no kernel error is below (MAX_ERRNO)
    for (std::uint32_t i = 0; i < type.count; ++i) {
        if (btf_.enumerator(type, i).value >= minus_4095) return true;
    }
    return false;
}

void TypeWriter::write_enumeration(const BtfType& type) {
    const bool has_name = named(type);
    const bool is_signed = is_signed_enumeration(type);
    put(has_name ? Shape::enumeration : Shape::enumeration_anonymous);
    if (has_name) put_name(type.name);
    info_.uleb(type.size_or_type);
    for (std::uint32_t i = 0; i < type.count; ++i) {
        const auto entry = btf_.enumerator(type, i);
        put(is_signed ? Shape::enumerator : Shape::enumerator_unsigned);
        put_name(entry.name);
        if (is_signed) {
            info_.sleb(type.kind == BtfKind::enum32 ? static_cast<std::int32_t>(entry.value) : entry.value);
        } else {
            info_.uleb(static_cast<std::uint64_t>(entry.value));
        }
    }
    put(Shape::end);
}

void TypeWriter::write_prototype(const BtfType& type) {
    const auto result = usable(type.size_or_type);
    put(result != 0 ? Shape::prototype : Shape::prototype_void);
    if (result != 0) reference(result);
    for_each_parameter(*this, type, [&](std::uint32_t /*name*/, BtfId parameter) {
        put(parameter != 0 ? Shape::parameter_type : Shape::unspecified_parameters);
        if (parameter != 0) reference(parameter);
    });
    put(Shape::end);
}

void TypeWriter::write_declaration(const BtfType& type, bool is_union) {
    put(is_union ? Shape::union_declaration : Shape::structure_declaration);
    put_name(type.name);
}

}  // namespace exo::os::dwarf
