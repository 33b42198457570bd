#include "os-awareness/dwarf/abbreviations.h"

#include <array>

#include "os-awareness/dwarf/constants.h"

namespace exo::os::dwarf {
namespace {

struct AttributeSpec {
    Attribute attribute = Attribute::none;
    Form form = Form::none;
    std::int64_t constant = 0;  // of Form::implicit_const
};

struct ShapeSpec {
    Shape shape;
    Tag tag;
    bool children;
    std::array<AttributeSpec, 6> attributes;
};

constexpr AttributeSpec with_name{Attribute::name, Form::strp};
constexpr AttributeSpec with_producer{Attribute::producer, Form::strp};
constexpr AttributeSpec of_type{Attribute::type, Form::ref_addr};
constexpr AttributeSpec with_size{Attribute::byte_size, Form::udata};
constexpr AttributeSpec pointer_size{Attribute::byte_size, Form::implicit_const, address_bytes};
constexpr AttributeSpec c_language{Attribute::language, Form::implicit_const, language_c11};
constexpr AttributeSpec is_declaration{Attribute::declaration, Form::flag_present};
constexpr AttributeSpec is_external{Attribute::external, Form::flag_present};
constexpr AttributeSpec is_prototyped{Attribute::prototyped, Form::flag_present};
constexpr AttributeSpec at_byte{Attribute::data_member_location, Form::udata};
constexpr AttributeSpec at_bit{Attribute::data_bit_offset, Form::udata};
constexpr AttributeSpec with_bits{Attribute::bit_size, Form::udata};
constexpr AttributeSpec from_pc{Attribute::low_pc, Form::addr};
constexpr AttributeSpec pc_bytes{Attribute::high_pc, Form::data4};
constexpr AttributeSpec in_list{Attribute::location, Form::sec_offset};
constexpr AttributeSpec with_count{Attribute::count, Form::udata};
constexpr AttributeSpec in_memory{Attribute::location, Form::exprloc};

constexpr auto shape_specs = std::to_array<ShapeSpec>({
    {Shape::unit, Tag::compile_unit, true, {with_name, with_producer, c_language}},
    {Shape::code_unit, Tag::compile_unit, true, {with_name, with_producer, c_language, from_pc, pc_bytes}},
    {Shape::base_type,
     Tag::base_type,
     false,
     {with_name, {Attribute::encoding, Form::data1}, {Attribute::byte_size, Form::data1}}},
    {Shape::pointer, Tag::pointer_type, false, {pointer_size, of_type}},
    {Shape::pointer_void, Tag::pointer_type, false, {pointer_size}},
    {Shape::const_type, Tag::const_type, false, {of_type}},
    {Shape::const_void, Tag::const_type, false, {}},
    {Shape::volatile_type, Tag::volatile_type, false, {of_type}},
    {Shape::volatile_void, Tag::volatile_type, false, {}},
    {Shape::restrict_type, Tag::restrict_type, false, {of_type}},
    {Shape::restrict_void, Tag::restrict_type, false, {}},
    {Shape::typedef_type, Tag::typedef_, false, {with_name, of_type}},
    {Shape::typedef_void, Tag::typedef_, false, {with_name}},
    {Shape::array, Tag::array_type, true, {of_type}},
    {Shape::subrange, Tag::subrange_type, false, {with_count}},
    {Shape::subrange_open, Tag::subrange_type, false, {}},
    {Shape::structure, Tag::structure_type, true, {with_name, with_size}},
    {Shape::structure_anonymous, Tag::structure_type, true, {with_size}},
    {Shape::structure_declaration, Tag::structure_type, false, {with_name, is_declaration}},
    {Shape::union_, Tag::union_type, true, {with_name, with_size}},
    {Shape::union_anonymous, Tag::union_type, true, {with_size}},
    {Shape::union_declaration, Tag::union_type, false, {with_name, is_declaration}},
    {Shape::member, Tag::member, false, {with_name, of_type, at_byte}},
    {Shape::member_anonymous, Tag::member, false, {of_type, at_byte}},
    {Shape::bitfield, Tag::member, false, {with_name, of_type, with_bits, at_bit}},
    {Shape::bitfield_anonymous, Tag::member, false, {of_type, with_bits, at_bit}},
    {Shape::enumeration, Tag::enumeration_type, true, {with_name, with_size}},
    {Shape::enumeration_anonymous, Tag::enumeration_type, true, {with_size}},
    {Shape::enumerator, Tag::enumerator, false, {with_name, {Attribute::const_value, Form::sdata}}},
    {Shape::enumerator_unsigned, Tag::enumerator, false, {with_name, {Attribute::const_value, Form::udata}}},
    {Shape::prototype, Tag::subroutine_type, true, {is_prototyped, of_type}},
    {Shape::prototype_void, Tag::subroutine_type, true, {is_prototyped}},
    {Shape::parameter_type, Tag::formal_parameter, false, {of_type}},
    {Shape::unspecified_parameters, Tag::unspecified_parameters, false, {}},
    {Shape::function,
     Tag::subprogram,
     true,
     {is_external, is_prototyped, with_name, from_pc, pc_bytes, of_type}},
    {Shape::function_void, Tag::subprogram, true, {is_external, is_prototyped, with_name, from_pc, pc_bytes}},
    {Shape::function_static, Tag::subprogram, true, {is_prototyped, with_name, from_pc, pc_bytes, of_type}},
    {Shape::function_static_void, Tag::subprogram, true, {is_prototyped, with_name, from_pc, pc_bytes}},
    {Shape::parameter, Tag::formal_parameter, false, {with_name, of_type}},
    {Shape::parameter_anonymous, Tag::formal_parameter, false, {of_type}},
    {Shape::parameter_located, Tag::formal_parameter, false, {with_name, of_type, in_list}},
    {Shape::parameter_located_anonymous, Tag::formal_parameter, false, {of_type, in_list}},
    {Shape::variable, Tag::variable, false, {is_external, with_name, of_type, in_memory}},
    {Shape::variable_static, Tag::variable, false, {with_name, of_type, in_memory}},
});

}  // namespace

ByteBuffer abbreviations() {
    ByteBuffer out;
    for (const auto& spec : shape_specs) {
        out.uleb(static_cast<std::uint8_t>(spec.shape));
        out.uleb(static_cast<std::uint8_t>(spec.tag));
        out.u8(spec.children ? 1 : 0);
        for (const auto& attribute : spec.attributes) {
            if (attribute.attribute == Attribute::none) break;
            out.uleb(static_cast<std::uint8_t>(attribute.attribute));
            out.uleb(static_cast<std::uint8_t>(attribute.form));
            if (attribute.form == Form::implicit_const) out.sleb(attribute.constant);
        }
        out.u8(0);
        out.u8(0);
    }
    out.u8(0);
    return out;
}

}  // namespace exo::os::dwarf
