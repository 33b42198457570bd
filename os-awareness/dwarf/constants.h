// Numbers of DWARF 5 (section 7), those that we write.
#pragma once

#include <cstdint>

namespace exo::os::dwarf {

enum class Tag : std::uint8_t {
    array_type = 0x01,
    enumeration_type = 0x04,
    formal_parameter = 0x05,
    member = 0x0d,
    pointer_type = 0x0f,
    compile_unit = 0x11,
    structure_type = 0x13,
    subroutine_type = 0x15,
    typedef_ = 0x16,
    union_type = 0x17,
    unspecified_parameters = 0x18,
    subrange_type = 0x21,
    base_type = 0x24,
    const_type = 0x26,
    enumerator = 0x28,
    subprogram = 0x2e,
    variable = 0x34,
    volatile_type = 0x35,
    restrict_type = 0x37,
};

enum class Attribute : std::uint8_t {
    none = 0,
    location = 0x02,
    name = 0x03,
    byte_size = 0x0b,
    bit_size = 0x0d,
    low_pc = 0x11,
    high_pc = 0x12,
    language = 0x13,
    const_value = 0x1c,
    producer = 0x25,
    prototyped = 0x27,
    count = 0x37,
    data_member_location = 0x38,
    declaration = 0x3c,
    encoding = 0x3e,
    external = 0x3f,
    type = 0x49,
    data_bit_offset = 0x6b,
};

enum class Form : std::uint8_t {
    none = 0,
    addr = 0x01,
    data4 = 0x06,
    data1 = 0x0b,
    sdata = 0x0d,
    strp = 0x0e,
    udata = 0x0f,
    ref_addr = 0x10,
    sec_offset = 0x17,
    exprloc = 0x18,
    flag_present = 0x19,
    implicit_const = 0x21,
};

enum class Encoding : std::uint8_t {
    boolean = 0x02,
    floating = 0x04,
    signed_ = 0x05,
    signed_char = 0x06,
    unsigned_ = 0x07,
    unsigned_char = 0x08,
};

inline constexpr std::uint16_t version = 5;
inline constexpr std::uint8_t unit_type_compile = 0x01;  // DW_UT_compile
inline constexpr std::uint8_t address_bytes = 8;
inline constexpr std::int64_t language_c11 = 0x1d;  // DW_LANG_C11

inline constexpr std::uint8_t op_addr = 0x03;
inline constexpr std::uint8_t op_const8u = 0x0e;
inline constexpr std::uint8_t op_reg0 = 0x50;
inline constexpr std::uint8_t op_piece = 0x93;
inline constexpr std::uint8_t op_nop = 0x96;

inline constexpr std::uint8_t list_end = 0x00;          // DW_LLE_end_of_list
inline constexpr std::uint8_t list_offset_pair = 0x04;  // DW_LLE_offset_pair

}  // namespace exo::os::dwarf
