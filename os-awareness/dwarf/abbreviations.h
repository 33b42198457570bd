// The one abbreviation table of all units: what a debugging entry of each shape consists of.
//
// All references are DW_FORM_ref_addr, offsets into .debug_info: they cost what a reference within a unit
// does, and one form does for both.
#pragma once

#include <cstdint>

#include "os-awareness/elf/byte_buffer.h"

namespace exo::os::dwarf {

// `_void`: without the type that the other has; `_anonymous`: without a name.
enum class Shape : std::uint8_t {
    end = 0,  // of a list of children
    unit,
    code_unit,
    base_type,
    pointer,
    pointer_void,
    const_type,
    const_void,
    volatile_type,
    volatile_void,
    restrict_type,
    restrict_void,
    typedef_type,
    typedef_void,
    array,
    subrange,
    subrange_open,
    structure,
    structure_anonymous,
    structure_declaration,
    union_,
    union_anonymous,
    union_declaration,
    member,
    member_anonymous,
    bitfield,
    bitfield_anonymous,
    enumeration,
    enumeration_anonymous,
    enumerator,
    enumerator_unsigned,
    prototype,
    prototype_void,
    parameter_type,
    unspecified_parameters,
    function,
    function_void,
    function_static,
    function_static_void,
    parameter,
    parameter_anonymous,
    parameter_located,
    parameter_located_anonymous,
    variable,
    variable_static,
};

// .debug_abbrev
ByteBuffer abbreviations();

}  // namespace exo::os::dwarf
