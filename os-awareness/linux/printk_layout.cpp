#include "os-awareness/linux/printk_layout.h"

#include <algorithm>
#include <string>

namespace exo::os {
namespace {

struct PrintkRow {
    Field& (*field)(PrintkRingLayout&);
    std::string_view outer_type;  // empty: none
    std::string_view outer;
    std::string_view type;
    std::string_view member;
    std::uint32_t size;
};

// clang-format off
constexpr PrintkRow printk_rows[] = {
    {[](PrintkRingLayout& l) -> Field& { return l.count_bits; }, "printk_ringbuffer", "desc_ring", "prb_desc_ring", "count_bits", 4},
    {[](PrintkRingLayout& l) -> Field& { return l.descs; }, "printk_ringbuffer", "desc_ring", "prb_desc_ring", "descs", 8},
    {[](PrintkRingLayout& l) -> Field& { return l.infos; }, "printk_ringbuffer", "desc_ring", "prb_desc_ring", "infos", 8},
    {[](PrintkRingLayout& l) -> Field& { return l.head_id; }, "printk_ringbuffer", "desc_ring", "prb_desc_ring", "head_id", 8},
    {[](PrintkRingLayout& l) -> Field& { return l.tail_id; }, "printk_ringbuffer", "desc_ring", "prb_desc_ring", "tail_id", 8},
    {[](PrintkRingLayout& l) -> Field& { return l.size_bits; }, "printk_ringbuffer", "text_data_ring", "prb_data_ring", "size_bits", 4},
    {[](PrintkRingLayout& l) -> Field& { return l.data; }, "printk_ringbuffer", "text_data_ring", "prb_data_ring", "data", 8},
    {[](PrintkRingLayout& l) -> Field& { return l.state; }, "", "", "prb_desc", "state_var", 8},
    {[](PrintkRingLayout& l) -> Field& { return l.begin; }, "prb_desc", "text_blk_lpos", "prb_data_blk_lpos", "begin", 8},
    {[](PrintkRingLayout& l) -> Field& { return l.next; }, "prb_desc", "text_blk_lpos", "prb_data_blk_lpos", "next", 8},
    {[](PrintkRingLayout& l) -> Field& { return l.sequence; }, "", "", "printk_info", "seq", 8},
    {[](PrintkRingLayout& l) -> Field& { return l.time; }, "", "", "printk_info", "ts_nsec", 8},
    {[](PrintkRingLayout& l) -> Field& { return l.text_len; }, "", "", "printk_info", "text_len", 2},
};
// clang-format on

constexpr BitField printk_level{0, 5, 3};  // u8 flags:5, level:3; the offset is the caller's
constexpr std::uint32_t largest_struct = 4096;

// One source or the other, both by the same names.
class PrintkTypes {
public:
    PrintkTypes(const Btf* btf, const VmCoreInfo* vmcoreinfo) : btf_(btf), vmcoreinfo_(vmcoreinfo) {}

    [[nodiscard]] std::optional<std::uint32_t> offset(std::string_view type, std::string_view member) const {
        if (btf_ != nullptr) {
            if (const auto field = btf_->field(type, member)) return bounded(field->offset());
        }
        if (vmcoreinfo_ == nullptr) return std::nullopt;
        return bounded(vmcoreinfo_->offset(std::string{type}.append(".").append(member)));
    }
    [[nodiscard]] std::optional<std::uint32_t> size(std::string_view type) const {
        if (btf_ != nullptr) {
            if (const auto composite = btf_->find_composite(type))
                return bounded(btf_->size_of(composite->id));
        }
        return vmcoreinfo_ != nullptr ? bounded(vmcoreinfo_->size(type)) : std::nullopt;
    }
    [[nodiscard]] std::optional<BitField> bits(std::string_view type, std::string_view member) const {
        if (btf_ == nullptr) return std::nullopt;
        const auto field = btf_->field(type, member);
        if (!field || field->bits == 0 || field->bit_offset % 8 + field->bits > 8) return std::nullopt;
        const auto at = bounded(field->offset());
        if (!at) return std::nullopt;
        return BitField{*at, static_cast<std::uint8_t>(field->bit_offset % 8),
                        static_cast<std::uint8_t>(field->bits)};
    }

private:
    static std::optional<std::uint32_t> bounded(std::optional<std::uint64_t> value) {
        if (!value || *value > largest_struct) return std::nullopt;
        return static_cast<std::uint32_t>(*value);
    }

    const Btf* btf_;
    const VmCoreInfo* vmcoreinfo_;
};

// What VMCOREINFO leaves out follows the last length, as u8 facility, u8 flags and level.
void find_level(const PrintkTypes& types, std::string_view type, std::optional<std::uint32_t> after_lengths,
                RecordLayout& layout) {
    if (const auto facility = types.offset(type, "facility")) {
        layout.facility = {*facility, 1};
    } else if (after_lengths) {
        layout.facility = {*after_lengths, 1};
    }
    if (const auto level = types.bits(type, "level")) {
        layout.level = *level;
    } else if (after_lengths) {
        layout.level = printk_level;
        layout.level.offset = *after_lengths + 1;
    }
}

}  // namespace

Result<PrintkRingLayout> printk_ring_layout(const Btf* btf, const VmCoreInfo* vmcoreinfo) {
    const PrintkTypes types{btf, vmcoreinfo};
    PrintkRingLayout layout;
    const auto missing = [](std::string_view what) {
        return fail(Errc::unsupported, "neither BTF nor VMCOREINFO tells of " + std::string{what});
    };
    for (const auto& row : printk_rows) {
        const auto inner = types.offset(row.type, row.member);
        const auto outer = row.outer.empty() ? std::optional{0U} : types.offset(row.outer_type, row.outer);
        if (!inner || !outer) return missing(std::string{row.type}.append(".").append(row.member));
        row.field(layout) = {*inner + *outer, row.size};
    }
    const auto desc_size = types.size("prb_desc");
    const auto info_size = types.size("printk_info");
    if (!desc_size || !info_size || *desc_size == 0 || *info_size == 0) {
        return missing("the size of prb_desc or printk_info");
    }
    layout.desc_size = *desc_size;
    layout.size = *info_size;
    std::optional<std::uint32_t> after_lengths;
    if (const auto caller = types.offset("printk_info", "caller_id")) {
        layout.caller = {*caller, 4};
        if (*caller == layout.text_len.offset + 4) after_lengths = layout.text_len.offset + 2;
    }
    find_level(types, "printk_info", after_lengths, layout);
    for (const auto* field : {&layout.count_bits, &layout.descs, &layout.infos, &layout.head_id,
                              &layout.tail_id, &layout.size_bits, &layout.data}) {
        layout.ring_size = std::max(layout.ring_size, field->offset + field->size);
    }
    return layout;
}

PrintkLogLayout printk_log_layout(const Btf* btf, const VmCoreInfo* vmcoreinfo) {
    constexpr std::string_view type = "printk_log";
    const PrintkTypes types{btf, vmcoreinfo};
    PrintkLogLayout layout;
    layout.time = {types.offset(type, "ts_nsec").value_or(0), 8};
    layout.len = {types.offset(type, "len").value_or(8), 2};
    layout.text_len = {types.offset(type, "text_len").value_or(10), 2};
    layout.dict_len = {types.offset(type, "dict_len").value_or(12), 2};
    find_level(types, type, layout.dict_len.offset + 2, layout);
    layout.size = std::max(types.size(type).value_or(16), layout.facility.offset + 2);
    // CONFIG_PRINTK_CALLER (15ff2069cb7f, 5.1) puts it last.
    if (const auto caller = types.offset(type, "caller_id")) {
        layout.caller = {*caller, 4};
    } else if (layout.size >= layout.facility.offset + 6) {
        layout.caller = {layout.facility.offset + 2, 4};
    }
    return layout;
}

}  // namespace exo::os
