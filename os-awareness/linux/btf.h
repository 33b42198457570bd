// BTF, the type information that a kernel carries in its own image (CONFIG_DEBUG_INFO_BTF).
// Format: Documentation/bpf/btf.rst and include/uapi/linux/btf.h of the kernel.
//
// The blob comes out of guest memory: parse() checks every record, so that what a Btf hands out stays within
// it. Type ids inside records are numbers that may be wrong; type() answers nothing for those.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/memory.h"
#include "backends/api/result.h"

namespace exo::os {

using BtfId = std::uint32_t;  // 0 is void, which has no record

enum class BtfKind : std::uint8_t {
    integer = 1,
    pointer = 2,
    array = 3,
    structure = 4,
    union_ = 5,
    enum32 = 6,
    forward = 7,
    typedef_ = 8,
    volatile_ = 9,
    const_ = 10,
    restrict_ = 11,
    function = 12,
    function_prototype = 13,
    variable = 14,
    data_section = 15,
    floating = 16,
    decl_tag = 17,
    type_tag = 18,
    enum64 = 19,
};

// One record. A view into its Btf; cheap to copy.
struct BtfType {
    BtfId id = 0;
    BtfKind kind{};
    bool flag = false;        // kind_flag: bitfield sizes in members, signed enum, union forward
    std::uint16_t count = 0;  // of the records in `tail`: members, enumerators, parameters, variables
    std::uint32_t name = 0;   // offset into the strings
    // `size` of integer, struct, union, enum, data section, float; else `type`, what it refers to.
    std::uint32_t size_or_type = 0;
    const std::byte* tail = nullptr;

    [[nodiscard]] bool composite() const { return kind == BtfKind::structure || kind == BtfKind::union_; }
    // const, volatile, restrict, typedef, type_tag: another name or another quality of `size_or_type`.
    [[nodiscard]] bool transparent() const;
};

struct BtfMember {
    std::uint32_t name = 0;  // 0: anonymous
    BtfId type = 0;
    std::uint32_t bit_offset = 0;
    std::uint8_t bitfield_size = 0;  // bits, 0: not a bitfield
};

struct BtfEnumerator {
    std::uint32_t name = 0;
    std::int64_t value = 0;  // as unsigned where BtfType::flag is not set
};

struct BtfParameter {
    std::uint32_t name = 0;
    BtfId type = 0;  // name and type 0 in the last one: variadic
};

struct BtfSectionVariable {
    BtfId variable = 0;  // a record of kind `variable`
    std::uint32_t offset = 0;
    std::uint32_t size = 0;
};

struct BtfArray {
    BtfId element = 0;
    BtfId index = 0;
    std::uint32_t count = 0;
};

// Encoding of an integer (btf.rst 2.2.1).
struct BtfInteger {
    bool is_signed = false;
    bool is_char = false;
    bool is_bool = false;
    std::uint8_t bit_offset = 0;
    std::uint8_t bits = 0;
};

// Where a member lies in its outermost structure, through however many anonymous ones.
struct BtfField {
    std::uint64_t bit_offset = 0;
    std::uint32_t bits = 0;  // of a bitfield, 0: a whole `size` bytes
    std::uint64_t size = 0;  // bytes, of its type
    BtfId type = 0;

    [[nodiscard]] std::uint64_t offset() const { return bit_offset / 8; }
};

class Btf {
public:
    // More than any kernel has; a bound on what a hostile guest makes us read.
    static constexpr std::size_t max_bytes = std::size_t{64} << 20;
    static constexpr std::size_t header_bytes = 24;

    // The size of the whole blob according to its first header_bytes; bad_data if that is no BTF header.
    static Result<std::size_t> blob_size(ConstBytes header);

    // bad_data when the header is wrong or not a single record is usable. Records from the first malformed
    // or unknown one on are left out, since nobody can tell where the next one begins: see incomplete().
    static Result<Btf> parse(std::vector<std::byte> blob);
    // Split BTF, as modules have it (btf.rst 4.6, kernel/bpf/btf.c: btf_parse_module): ids and string offsets
    // go on where those of `base` end, and records may refer to those of `base`. `base` must outlive it.
    static Result<Btf> parse_split(std::vector<std::byte> blob, const Btf& base);

    // What ended the parsing before the end of the types: one line; empty if nothing did.
    [[nodiscard]] const std::string& incomplete() const { return incomplete_; }

    // Ids are 1 … last_id(). Those from first_own_id() on are not the base's.
    [[nodiscard]] BtfId first_own_id() const { return first_id_; }
    [[nodiscard]] BtfId last_id() const { return first_id_ - 1 + static_cast<BtfId>(records_.size()); }
    [[nodiscard]] std::optional<BtfType> type(BtfId id) const;
    // "" for an offset out of bounds; cut at 1024 bytes.
    [[nodiscard]] std::string_view string(std::uint32_t offset) const;
    [[nodiscard]] std::string_view name(const BtfType& type) const { return string(type.name); }
    // All strings by offset: those of the base first, if there is one, then its own.
    [[nodiscard]] std::array<ConstBytes, 2> string_sections() const;

    // Records of the tail, `index` < type.count (array, integer, linkage: exactly one). Only for a type of
    // the right kind; otherwise a default value.
    [[nodiscard]] BtfMember member(const BtfType& type, std::uint32_t index) const;
    [[nodiscard]] BtfEnumerator enumerator(const BtfType& type, std::uint32_t index) const;
    [[nodiscard]] BtfParameter parameter(const BtfType& type, std::uint32_t index) const;
    [[nodiscard]] BtfSectionVariable section_variable(const BtfType& type, std::uint32_t index) const;
    [[nodiscard]] BtfArray array(const BtfType& type) const;
    [[nodiscard]] BtfInteger integer(const BtfType& type) const;

    // The first of that name and kind, the base's before its own. The index is built at the first call.
    [[nodiscard]] std::optional<BtfType> find(std::string_view name, BtfKind kind) const;
    // Whether more than one structure, union or enumeration has that name, which is one name space in C; also
    // true where there are too many records of that name to look at them all.
    [[nodiscard]] bool tag_is_shared(std::string_view name) const;
    // struct or union, or the one behind a typedef of that name.
    [[nodiscard]] std::optional<BtfType> find_composite(std::string_view name) const;

    // Behind typedefs and qualifiers; nothing for void, bad ids and chains without end.
    [[nodiscard]] std::optional<BtfType> resolve(BtfId id) const;
    // Bytes; nothing for void, functions, forwards and what is too large to be true.
    [[nodiscard]] std::optional<std::uint64_t> size_of(BtfId id) const;

    // A member by path: "thread.sp", "__state"; anonymous members are looked through at each step, and
    // pointers are not followed. not_found names the part of the path that is not there.
    [[nodiscard]] Result<BtfField> field(const BtfType& composite, std::string_view path) const;
    [[nodiscard]] Result<BtfField> field(std::string_view composite, std::string_view path) const;

    // The value of an enumerator of a named enum.
    [[nodiscard]] std::optional<std::int64_t> enumerator(std::string_view enum_name,
                                                         std::string_view enumerator) const;

    // Offset of a variable in the per-CPU section. Absent from builds without CONFIG_SMP.
    [[nodiscard]] std::optional<BtfSectionVariable> per_cpu_variable(std::string_view name) const;

private:
    Btf() = default;
    void index_records(std::size_t types_begin, std::size_t types_end);
    void build_name_index() const;
    [[nodiscard]] std::size_t count_tags(std::string_view name, std::size_t limit) const;
    [[nodiscard]] std::optional<BtfField> find_member(const BtfType& composite, std::string_view name) const;

    static Result<Btf> parse(std::vector<std::byte> blob, const Btf* base);
    // Of its own, without the base's.
    [[nodiscard]] ConstBytes own_strings() const;
    [[nodiscard]] std::size_t strings_size() const { return base_strings_ + strings_size_; }

    const Btf* base_ = nullptr;
    BtfId first_id_ = 1;
    std::size_t base_strings_ = 0;  // bytes of the base's strings
    std::vector<std::byte> blob_;
    std::size_t strings_begin_ = 0;
    std::size_t strings_size_ = 0;
    std::vector<std::uint32_t> records_;  // offset in blob_ of id first_id_ + i
    std::string incomplete_;
    mutable std::vector<std::uint64_t> by_name_;  // hash of the name above, id below; sorted
};

}  // namespace exo::os
