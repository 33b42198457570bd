// Types of BTF as DWARF, in many small units, so that a debugger reads what it is asked for.
//
// A debugger reads a unit as a whole, and with it each unit that one refers to (gdb: follow_die_offset,
// dwarf2/read.c). In one unit that would be every type of the kernel at the first question, and so it would
// be in many, since all types are connected by pointers. So:
// - a type that has a name and holds others (struct, union, typedef) has a unit of its own, its *home*;
// numbers
//   share one, enumerations share a few;
// - what lies in a type by value is referred to in its home;
// - what is pointed to is declared, and the debugger finds it by name when asked (gdb: check_typedef), as it
//   does with what compilers write. Where several have that name, it is referred to instead;
// - what has no name (pointers, arrays, prototypes, structures without one) is copied into each unit.
//
// BTF is a guest's: a reference that leads nowhere, or round in a circle without a structure in it, is void.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "os-awareness/dwarf/abbreviations.h"
#include "os-awareness/elf/byte_buffer.h"
#include "os-awareness/linux/btf.h"

namespace exo::os::dwarf {

class TypeWriter {
public:
    // More than any kernel needs: those that were looked at need 6 MB. A bound on what a guest makes us
    // write.
    static constexpr std::size_t max_bytes = std::size_t{96} << 20;

    // `name` is the units' name, as in "File vmlinux:" of gdb's `info types`, `producer` who compiled the
    // code, as compilers spell themselves. `btf` must outlive this.
    TypeWriter(const Btf& btf, std::string_view name, std::string_view producer);

    // All of the BTF's own types. Those of a base that they hold by value come with finish().
    void write_types();
    // To be called last: writes homes that are still to be written, and what refers to them. bad_data if
    // there was more than max_bytes.
    Result<void> finish();

    // A unit of something else. Between begin and end entries are written with put and reference.
    void begin_unit();
    void begin_code_unit(std::uint64_t low, std::uint32_t bytes);
    void end_unit();

    void put(Shape shape) { info_.uleb(static_cast<std::uint8_t>(shape)); }
    // The string at a BTF's offset, or at one of add_string().
    void put_name(std::uint32_t offset);
    // The type that `id` stands for in a reference, 0 if that is void.
    [[nodiscard]] BtfId usable(BtfId id) const;
    // A reference to a usable type. `pointed`: by a pointer, so that a declaration is enough.
    void reference(BtfId id, bool pointed = false);
    [[nodiscard]] bool full() const { return info_.size() > max_bytes; }

    std::uint32_t add_string(std::string_view text);

    [[nodiscard]] const Btf& btf() const { return btf_; }
    [[nodiscard]] ByteBuffer& info() { return info_; }
    // .debug_str
    [[nodiscard]] std::vector<std::byte> strings() const;

private:
    void begin_unit(Shape shape);
    struct Fixup {
        std::uint32_t at = 0;
        std::uint32_t key = 0;
    };
    enum class Shared : std::uint8_t { not_asked, no, yes };
    struct Copy {
        std::uint32_t unit = 0;    // that it belongs to
        std::uint32_t offset = 0;  // 0: to be written
    };

    [[nodiscard]] bool has_home(const BtfType& type) const;
    [[nodiscard]] bool may_be_declared(BtfId id);
    [[nodiscard]] bool is_number(BtfId id) const;
    [[nodiscard]] bool named(const BtfType& type) const { return !btf_.name(type).empty(); }
    [[nodiscard]] std::uint32_t position() const { return static_cast<std::uint32_t>(info_.size()); }
    [[nodiscard]] bool is_signed_enumeration(const BtfType& type) const;
    void look_at_names();
    void look_at_enumerations();
    [[nodiscard]] bool shares_name(const BtfType& type);
    [[nodiscard]] std::uint32_t pooled(std::uint32_t offset);
    [[nodiscard]] std::string_view text_at(std::uint32_t offset) const;

    void write_home(BtfId id);
    void write_units_of(const std::vector<BtfId>& ids, std::size_t each);
    void write_copies();

    void write(const BtfType& type, bool declared);
    void write_integer(const BtfType& type);
    void write_reference(const BtfType& type, Shape with_type, Shape without, bool pointed);
    void write_array(const BtfType& type);
    void write_composite(const BtfType& type);
    void write_member(const BtfType& composite, const BtfMember& member);
    void write_enumeration(const BtfType& type);
    void write_prototype(const BtfType& type);
    void write_declaration(const BtfType& type, bool is_union);

    const Btf& btf_;
    ByteBuffer info_;
    std::string extra_strings_;
    std::uint32_t extra_begin_ = 0;
    // Split BTF: of the kernel's strings a module needs few. Where each that is used lies in the pool.
    bool split_;
    std::string pool_;
    std::unordered_map<std::uint32_t, std::uint32_t> pooled_;
    std::uint32_t unit_name_ = 0;
    std::uint32_t producer_ = 0;

    std::uint32_t unit_ = 0;  // number of the current one, from 1 on
    std::size_t unit_begin_ = 0;
    std::vector<std::uint32_t> homes_;  // by id: offset, 0: not written
    std::vector<bool> wanted_;          // by id: in the queue, or written
    std::vector<BtfId> queue_;
    std::vector<Fixup> to_homes_;
    bool has_signed_enumerations_ = false;
    std::vector<Shared> shared_;  // by id: whether a structure's name is another's too
    // By key: id * 2, + 1 for one in which what has a name is only declared.
    std::vector<Copy> copies_;
    std::vector<std::uint32_t> copy_queue_;
    std::vector<Fixup> to_copies_;
};

// The parameters of a prototype, those that can be written.
template <class Visit>
void for_each_parameter(const TypeWriter& types, const BtfType& prototype, Visit visit) {
    for (std::uint32_t i = 0; i < prototype.count; ++i) {
        const auto parameter = types.btf().parameter(prototype, i);
        const bool variadic = parameter.type == 0 && i + 1U == prototype.count;
        const auto type = types.usable(parameter.type);
        if (variadic || type != 0) visit(parameter.name, type);
    }
}

}  // namespace exo::os::dwarf
