#include "os-awareness/linux/btf.h"

#include <algorithm>
#include <cstring>

namespace exo::os {
namespace {

constexpr std::uint16_t magic = 0xeb9f;
constexpr std::uint8_t version = 1;
constexpr std::size_t record_bytes = 12;  // struct btf_type
constexpr std::size_t max_types = std::size_t{4} << 20;
// The kernel allows names of KSYM_NAME_LEN, 512. Without a bound, strings without a NUL take for ever.
constexpr std::size_t max_string = 1024;
constexpr int max_chain = 64;  // typedefs and qualifiers one behind the other

// What follows the 12 bytes of a record: `fixed` bytes, then `each` bytes times vlen (btf.rst 2.2).
struct Kind {
    bool known = false;
    std::uint8_t fixed = 0;
    std::uint8_t each = 0;
};
constexpr std::array<Kind, 32> kinds = [] {
    std::array<Kind, 32> table{};
    auto row = [&](BtfKind kind, std::uint8_t fixed, std::uint8_t each) {
        table.at(static_cast<std::size_t>(kind)) = {true, fixed, each};
    };
    row(BtfKind::integer, 4, 0);
    row(BtfKind::pointer, 0, 0);
    row(BtfKind::array, 12, 0);
    row(BtfKind::structure, 0, 12);
    row(BtfKind::union_, 0, 12);
    row(BtfKind::enum32, 0, 8);
    row(BtfKind::forward, 0, 0);
    row(BtfKind::typedef_, 0, 0);
    row(BtfKind::volatile_, 0, 0);
    row(BtfKind::const_, 0, 0);
    row(BtfKind::restrict_, 0, 0);
    row(BtfKind::function, 0, 0);
    row(BtfKind::function_prototype, 0, 8);
    row(BtfKind::variable, 4, 0);
    row(BtfKind::data_section, 0, 12);
    row(BtfKind::floating, 0, 0);
    row(BtfKind::decl_tag, 4, 0);
    row(BtfKind::type_tag, 0, 0);
    row(BtfKind::enum64, 0, 12);
    return table;
}();

std::uint32_t load32(const std::byte* p) {
    std::uint32_t value = 0;
    std::memcpy(&value, p, sizeof value);
    return value;
}

struct Header {
    std::size_t types_begin = 0, types_end = 0, strings_begin = 0, strings_end = 0;
};

// struct btf_header; offsets of the sections count from its end.
Result<Header> parse_header(ConstBytes bytes) {
    if (bytes.size() < Btf::header_bytes) return fail(Errc::bad_data, "BTF header is cut off");
    const auto first = load32(bytes.data());
    if ((first & 0xffffU) != magic) return fail(Errc::bad_data, "no BTF magic");
    if (((first >> 16) & 0xffU) != version) {
        return fail(Errc::bad_data, "unknown BTF version " + std::to_string((first >> 16) & 0xffU));
    }
    const std::uint64_t header = load32(bytes.data() + 4);
    const std::uint64_t types = load32(bytes.data() + 8);
    const std::uint64_t types_size = load32(bytes.data() + 12);
    const std::uint64_t strings = load32(bytes.data() + 16);
    const std::uint64_t strings_size = load32(bytes.data() + 20);
    if (header < Btf::header_bytes || header % 4 != 0 || types % 4 != 0 ||
        header + types + types_size > Btf::max_bytes || header + strings + strings_size > Btf::max_bytes) {
        return fail(Errc::bad_data, "BTF header with sections out of bounds");
    }
    return Header{header + types, header + types + types_size, header + strings,
                  header + strings + strings_size};
}

}  // namespace

bool BtfType::transparent() const {
    return kind == BtfKind::typedef_ || kind == BtfKind::volatile_ || kind == BtfKind::const_ ||
           kind == BtfKind::restrict_ || kind == BtfKind::type_tag;
}

Result<std::size_t> Btf::blob_size(ConstBytes header) {
    const auto parsed = TRY(parse_header(header));
    return std::max(parsed.types_end, parsed.strings_end);
}

Result<Btf> Btf::parse(std::vector<std::byte> blob) { return parse(std::move(blob), nullptr); }

Result<Btf> Btf::parse_split(std::vector<std::byte> blob, const Btf& base) {
    if (base.base_ != nullptr) return fail(Errc::bad_data, "BTF on a base that is split itself");
    return parse(std::move(blob), &base);
}

Result<Btf> Btf::parse(std::vector<std::byte> blob, const Btf* base) {
    const auto header = TRY(parse_header(blob));
    if (header.types_end > blob.size() || header.strings_end > blob.size()) {
        return fail(Errc::bad_data, "BTF is cut off: " + std::to_string(blob.size()) + " bytes of " +
                                        std::to_string(std::max(header.types_end, header.strings_end)));
    }
    Btf btf;
    if (base != nullptr) {
        btf.base_ = base;
        btf.first_id_ = base->last_id() + 1;
        btf.base_strings_ = base->strings_size();
    }
    btf.blob_ = std::move(blob);
    btf.strings_begin_ = header.strings_begin;
    btf.strings_size_ = header.strings_end - header.strings_begin;
    btf.index_records(header.types_begin, header.types_end);
    if (btf.records_.empty()) {
        return fail(Errc::bad_data,
                    "BTF without a usable type" +
                        (btf.incomplete_.empty() ? std::string{} : std::string{": "} + btf.incomplete_));
    }
    return btf;
}

void Btf::index_records(std::size_t types_begin, std::size_t types_end) {
    // The usual kernel has 30 bytes a type.
    records_.reserve(std::min((types_end - types_begin) / 28, max_types));
    std::size_t at = types_begin;
    while (at < types_end) {
        const auto stop = [&](const std::string& why) {
            incomplete_ = "BTF type " + std::to_string(last_id() + 1) + ": " + why;
        };
        if (records_.size() >= max_types) return stop("more types than any kernel has");
        if (types_end - at < record_bytes) return stop("cut off");
        const auto info = load32(&blob_[at + 4]);
        const auto kind = (info >> 24) & 0x1fU;
        if (!kinds.at(kind).known) return stop("unknown kind " + std::to_string(kind));
        const std::size_t tail = kinds.at(kind).fixed + std::size_t{kinds.at(kind).each} * (info & 0xffffU);
        if (types_end - at - record_bytes < tail) return stop("its records are cut off");
        records_.push_back(static_cast<std::uint32_t>(at));
        at += record_bytes + tail;
    }
}

std::optional<BtfType> Btf::type(BtfId id) const {
    if (id < first_id_ && base_ != nullptr) return base_->type(id);
    if (id == 0 || id > last_id()) return std::nullopt;
    const auto* record = &blob_[records_[id - first_id_]];
    const auto info = load32(record + 4);
    return BtfType{.id = id,
                   .kind = static_cast<BtfKind>((info >> 24) & 0x1fU),
                   .flag = (info >> 31) != 0,
                   .count = static_cast<std::uint16_t>(info),
                   .name = load32(record),
                   .size_or_type = load32(record + 8),
                   .tail = record + record_bytes};
}

std::string_view Btf::string(std::uint32_t offset) const {
    if (offset < base_strings_) return base_->string(offset);
    offset -= static_cast<std::uint32_t>(base_strings_);
    if (offset >= strings_size_) return {};
    const auto* text = reinterpret_cast<const char*>(&blob_[strings_begin_ + offset]);
    const auto limit = std::min(max_string, strings_size_ - offset);
    const auto* nul = static_cast<const char*>(std::memchr(text, 0, limit));
    return {text, nul != nullptr ? static_cast<std::size_t>(nul - text) : limit};
}

ConstBytes Btf::own_strings() const { return ConstBytes{blob_}.subspan(strings_begin_, strings_size_); }

std::array<ConstBytes, 2> Btf::string_sections() const {
    if (base_ == nullptr) return {own_strings(), {}};
    return {base_->own_strings(), own_strings()};
}

BtfMember Btf::member(const BtfType& type, std::uint32_t index) const {
    if (!type.composite() || index >= type.count) return {};
    const auto* p = type.tail + std::size_t{index} * 12;
    const auto offset = load32(p + 8);
    BtfMember member{.name = load32(p), .type = load32(p + 4), .bit_offset = offset};
    if (type.flag) {
        member.bit_offset = offset & 0xffffffU;
        member.bitfield_size = static_cast<std::uint8_t>(offset >> 24);
    }
    return member;
}

BtfEnumerator Btf::enumerator(const BtfType& type, std::uint32_t index) const {
    if (index >= type.count) return {};
    if (type.kind == BtfKind::enum32) {
        const auto* p = type.tail + std::size_t{index} * 8;
        const auto value = load32(p + 4);
        return {load32(p), type.flag ? static_cast<std::int32_t>(value) : std::int64_t{value}};
    }
    if (type.kind == BtfKind::enum64) {
        const auto* p = type.tail + std::size_t{index} * 12;
        const auto value = load32(p + 4) | (std::uint64_t{load32(p + 8)} << 32);
        return {load32(p), static_cast<std::int64_t>(value)};
    }
    return {};
}

BtfParameter Btf::parameter(const BtfType& type, std::uint32_t index) const {
    if (type.kind != BtfKind::function_prototype || index >= type.count) return {};
    const auto* p = type.tail + std::size_t{index} * 8;
    return {load32(p), load32(p + 4)};
}

BtfSectionVariable Btf::section_variable(const BtfType& type, std::uint32_t index) const {
    if (type.kind != BtfKind::data_section || index >= type.count) return {};
    const auto* p = type.tail + std::size_t{index} * 12;
    return {load32(p), load32(p + 4), load32(p + 8)};
}

BtfArray Btf::array(const BtfType& type) const {
    if (type.kind != BtfKind::array) return {};
    return {load32(type.tail), load32(type.tail + 4), load32(type.tail + 8)};
}

BtfInteger Btf::integer(const BtfType& type) const {
    if (type.kind != BtfKind::integer) return {};
    const auto value = load32(type.tail);
    return {.is_signed = (value & (1U << 24)) != 0,
            .is_char = (value & (2U << 24)) != 0,
            .is_bool = (value & (4U << 24)) != 0,
            .bit_offset = static_cast<std::uint8_t>(value >> 16),
            .bits = static_cast<std::uint8_t>(value)};
}

std::optional<BtfType> Btf::resolve(BtfId id) const {
    for (int step = 0; step < max_chain; ++step) {
        const auto found = type(id);
        if (!found || !found->transparent()) return found;
        id = found->size_or_type;
    }
    return std::nullopt;
}

std::optional<std::uint64_t> Btf::size_of(BtfId id) const {
    constexpr std::uint64_t limit = std::uint64_t{1} << 40;
    std::uint64_t elements = 1;
    for (int step = 0; step < max_chain; ++step) {
        const auto found = resolve(id);
        if (!found) return std::nullopt;
        std::uint64_t size = 0;
        switch (found->kind) {
            case BtfKind::array: {
                const auto inner = array(*found);
                elements *= inner.count;
                if (elements > limit) return std::nullopt;
                id = inner.element;
                continue;
            }
            case BtfKind::pointer: size = 8; break;
            case BtfKind::integer:
            case BtfKind::structure:
            case BtfKind::union_:
            case BtfKind::enum32:
            case BtfKind::enum64:
            case BtfKind::floating: size = found->size_or_type; break;
            case BtfKind::variable: id = found->size_or_type; continue;
            default: return std::nullopt;
        }
        // Both factors are below 2^40 and 2^32.
        if (size != 0 && elements > limit / size) return std::nullopt;
        return elements * size;
    }
    return std::nullopt;
}

std::optional<BtfField> Btf::find_member(const BtfType& composite, std::string_view wanted) const {
    // Depth first through anonymous members, in order. Hostile types can nest for ever and in loops.
    struct Level {
        BtfType type;
        std::uint64_t base;
        std::uint32_t next;
    };
    constexpr std::size_t max_depth = 16;
    int budget = 200'000;
    std::vector<Level> levels{{composite, 0, 0}};
    while (!levels.empty() && --budget > 0) {
        auto& level = levels.back();
        if (level.next >= level.type.count) {
            levels.pop_back();
            continue;
        }
        const auto entry = member(level.type, level.next++);
        const auto bit_offset = level.base + entry.bit_offset;
        if (string(entry.name) == wanted) {
            return BtfField{bit_offset, entry.bitfield_size, size_of(entry.type).value_or(0), entry.type};
        }
        if (!string(entry.name).empty() || levels.size() >= max_depth) continue;
        const auto inner = resolve(entry.type);
        if (inner && inner->composite()) levels.push_back({*inner, bit_offset, 0});
    }
    return std::nullopt;
}

Result<BtfField> Btf::field(const BtfType& composite, std::string_view path) const {
    BtfField result{.size = size_of(composite.id).value_or(0), .type = composite.id};
    auto inside = composite;
    for (std::string_view rest = path; !rest.empty();) {
        const auto dot = std::min(rest.find('.'), rest.size());
        const auto part = rest.substr(0, dot);
        rest.remove_prefix(std::min(dot + 1, rest.size()));
        const auto found = inside.composite() && !part.empty() ? find_member(inside, part) : std::nullopt;
        if (!found) {
            return fail(Errc::not_found, "BTF: no member " + std::string{part} + " of " +
                                             std::string{name(composite)} + " on the way to " +
                                             std::string{path});
        }
        const auto base = result.bit_offset;
        result = *found;
        result.bit_offset += base;
        if (rest.empty()) break;
        const auto next = resolve(result.type);
        inside = next ? *next : BtfType{};
    }
    return result;
}

Result<BtfField> Btf::field(std::string_view composite, std::string_view path) const {
    const auto found = find_composite(composite);
    if (!found) return fail(Errc::not_found, "BTF: no struct " + std::string{composite});
    return field(*found, path);
}

std::optional<std::int64_t> Btf::enumerator(std::string_view enum_name, std::string_view wanted) const {
    for (const auto kind : {BtfKind::enum32, BtfKind::enum64}) {
        const auto found = find(enum_name, kind);
        if (!found) continue;
        for (std::uint32_t i = 0; i < found->count; ++i) {
            const auto entry = enumerator(*found, i);
            if (string(entry.name) == wanted) return entry.value;
        }
    }
    return std::nullopt;
}

std::optional<BtfSectionVariable> Btf::per_cpu_variable(std::string_view wanted) const {
    const auto section = find(".data..percpu", BtfKind::data_section);
    if (!section) return std::nullopt;
    for (std::uint32_t i = 0; i < section->count; ++i) {
        const auto entry = section_variable(*section, i);
        const auto variable = type(entry.variable);
        if (variable && variable->kind == BtfKind::variable && name(*variable) == wanted) return entry;
    }
    return std::nullopt;
}

}  // namespace exo::os
