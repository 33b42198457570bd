#include "os-awareness/dwarf/type_writer.h"

#include <algorithm>
#include <iterator>

#include "os-awareness/dwarf/constants.h"
#include "os-awareness/elf/symbol_sections.h"

namespace exo::os::dwarf {
namespace {

constexpr int max_reference_chain = 64;
// Few enough to be read at once; none of them refers to another.
constexpr std::size_t enumerations_per_unit = 32;

bool is_enumeration(const BtfType& type) {
    return type.kind == BtfKind::enum32 || type.kind == BtfKind::enum64;
}

bool is_type(BtfKind kind) {
    return kind != BtfKind::function && kind != BtfKind::variable && kind != BtfKind::data_section &&
           kind != BtfKind::decl_tag;
}

bool is_qualifier(BtfKind kind) {
    return kind == BtfKind::const_ || kind == BtfKind::volatile_ || kind == BtfKind::restrict_ ||
           kind == BtfKind::type_tag;
}

std::size_t total_size(const std::array<ConstBytes, 2>& sections) {
    return sections[0].size() + sections[1].size();
}

}  // namespace

TypeWriter::TypeWriter(const Btf& btf, std::string_view name, std::string_view producer)
    : btf_(btf),
      // One more: the last string of a BTF that is wrong may have no NUL.
      extra_begin_(static_cast<std::uint32_t>(total_size(btf.string_sections()) + 1)),
      split_(btf.first_own_id() > 1),
      pool_(1, '\0'),
      homes_(btf.last_id() + std::size_t{1}),
      wanted_(btf.last_id() + std::size_t{1}),
      shared_(btf.last_id() + std::size_t{1}),
      copies_((btf.last_id() + std::size_t{1}) * 2) {
    unit_name_ = add_string(name);
    producer_ = add_string(producer);
    if (!split_) look_at_names();
    look_at_enumerations();
}

std::uint32_t TypeWriter::add_string(std::string_view text) {
    const auto offset = extra_begin_ + static_cast<std::uint32_t>(extra_strings_.size());
    extra_strings_.append(text).push_back('\0');
    return offset;
}

std::vector<std::byte> TypeWriter::strings() const {
    std::vector<std::byte> out;
    out.reserve(split_ ? pool_.size() : extra_begin_ + extra_strings_.size());
    const auto append = [&](ConstBytes bytes) {
        std::ranges::transform(bytes, std::back_inserter(out), [](std::byte b) {
            return b == std::byte{0} ? b : static_cast<std::byte>(printable(static_cast<char>(b)));
        });
    };
    if (split_) {
        append(std::as_bytes(std::span{pool_}));
        return out;
    }
    for (const auto section : btf_.string_sections()) append(section);
    out.push_back(std::byte{0});
    append(std::as_bytes(std::span{extra_strings_}));
    return out;
}

std::string_view TypeWriter::text_at(std::uint32_t offset) const {
    if (offset < extra_begin_) return btf_.string(offset);
    const auto rest = std::string_view{extra_strings_}.substr(offset - extra_begin_);
    return rest.substr(0, rest.find('\0'));
}

std::uint32_t TypeWriter::pooled(std::uint32_t offset) {
    const auto [known, added] = pooled_.try_emplace(offset, static_cast<std::uint32_t>(pool_.size()));
    if (added) pool_.append(text_at(offset)).push_back('\0');
    return known->second;
}

void TypeWriter::put_name(std::uint32_t offset) {
    const bool inside = offset < extra_begin_ + extra_strings_.size();
    info_.u32(!inside ? 0 : split_ ? pooled(offset) : offset);
}

// Names of structures, unions and enumerations are one name space in C.
void TypeWriter::look_at_names() {
    std::vector<std::pair<std::string_view, BtfId>> names;
    for (BtfId id = 1; id <= btf_.last_id(); ++id) {
        const auto type = *btf_.type(id);
        if ((type.composite() || is_enumeration(type)) && named(type))
            names.emplace_back(btf_.name(type), id);
    }
    std::ranges::sort(names);
    for (std::size_t i = 1; i < names.size(); ++i) {
        if (names[i - 1].first != names[i].first) continue;
        shared_[names[i - 1].second] = Shared::yes;
        shared_[names[i].second] = Shared::yes;
    }
    std::ranges::replace(shared_, Shared::not_asked, Shared::no);
}

void TypeWriter::look_at_enumerations() {
    for (BtfId id = 1; id <= btf_.last_id() && !has_signed_enumerations_; ++id) {
        const auto type = *btf_.type(id);
        has_signed_enumerations_ = is_enumeration(type) && type.flag;
    }
}

// Of a module, which has few types among the kernel's many, only those that it uses are asked about.
bool TypeWriter::shares_name(const BtfType& type) {
    auto& known = shared_[type.id];
    if (known == Shared::not_asked) known = btf_.tag_is_shared(btf_.name(type)) ? Shared::yes : Shared::no;
    return known == Shared::yes;
}

BtfId TypeWriter::usable(BtfId id) const {
    auto type = btf_.type(id);
    for (int step = 0; type && type->kind == BtfKind::type_tag && step < max_reference_chain; ++step) {
        type = btf_.type(type->size_or_type);
    }
    if (!type) return 0;
    id = type->id;
    bool in_array = false;  // of what cannot be void
    for (int step = 0; step < max_reference_chain; ++step) {
        if (!type) return in_array ? 0 : id;
        if (!is_type(type->kind)) return 0;
        auto next = type->size_or_type;
        if (type->kind == BtfKind::array) {
            in_array = true;
            next = btf_.array(*type).element;
        } else if (type->kind == BtfKind::pointer || type->kind == BtfKind::function_prototype) {
            in_array = false;
        } else if (!type->transparent()) {
            return id;
        }
        type = btf_.type(next);
    }
    return 0;
}

bool TypeWriter::has_home(const BtfType& type) const {
    switch (type.kind) {
        case BtfKind::integer:
        case BtfKind::floating:
        case BtfKind::enum32:
        case BtfKind::enum64:
        case BtfKind::typedef_: return true;
        case BtfKind::structure:
        case BtfKind::union_: return named(type);
        default: return false;
    }
}

bool TypeWriter::may_be_declared(BtfId id) {
    auto type = btf_.type(id);
    for (int step = 0; type && is_qualifier(type->kind) && step < max_reference_chain; ++step) {
        type = btf_.type(type->size_or_type);
    }
    return type && type->composite() && named(*type) && !shares_name(*type);
}

bool TypeWriter::is_number(BtfId id) const {
    const auto type = btf_.resolve(id);
    return type && (type->kind == BtfKind::integer || type->kind == BtfKind::floating);
}

void TypeWriter::begin_unit(Shape shape) {
    ++unit_;
    unit_begin_ = info_.size();
    info_.u32(0);  // length, see end_unit
    info_.u16(version);
    info_.u8(unit_type_compile);
    info_.u8(address_bytes);
    info_.u32(0);  // of the abbreviations
    put(shape);
    put_name(unit_name_);
    put_name(producer_);
}

void TypeWriter::begin_unit() { begin_unit(Shape::unit); }

void TypeWriter::begin_code_unit(std::uint64_t low, std::uint32_t bytes) {
    begin_unit(Shape::code_unit);
    info_.u64(low);
    info_.u32(bytes);
}

void TypeWriter::end_unit() {
    write_copies();
    put(Shape::end);
    info_.patch32(unit_begin_, info_.size() - unit_begin_ - 4);
}

void TypeWriter::reference(BtfId id, bool pointed) {
    const auto type = btf_.type(id);
    if (!type) return info_.u32(0);
    const bool declared = pointed && may_be_declared(id);
    const auto at = position();
    if (has_home(*type) && !declared) {
        info_.u32(homes_[id]);
        if (homes_[id] != 0) return;
        to_homes_.push_back({at, id});
        if (!wanted_[id]) queue_.push_back(id);
        wanted_[id] = true;
        return;
    }
    const auto key = id * 2 + (declared ? 1U : 0U);
    auto& copy = copies_[key];
    if (copy.unit != unit_) {
        copy = {unit_, 0};
        copy_queue_.push_back(key);
    }
    if (copy.offset == 0) to_copies_.push_back({at, key});
    info_.u32(copy.offset);
}

void TypeWriter::write_copies() {
    // The queue grows meanwhile.
    for (std::size_t i = 0; i < copy_queue_.size(); ++i) {
        const auto key = copy_queue_[i];
        copies_[key].offset = position();
        write(*btf_.type(key / 2), key % 2 != 0);
    }
    for (const auto& fixup : to_copies_) info_.patch32(fixup.at, copies_[fixup.key].offset);
    copy_queue_.clear();
    to_copies_.clear();
}

void TypeWriter::write_home(BtfId id) {
    wanted_[id] = true;
    homes_[id] = position();
    write(*btf_.type(id), false);
}

void TypeWriter::write_units_of(const std::vector<BtfId>& ids, std::size_t each) {
    for (std::size_t i = 0; i < ids.size(); ++i) {
        if (full()) return;
        if (i % each == 0) begin_unit();
        write_home(ids[i]);
        if (i % each == each - 1 || i == ids.size() - 1) end_unit();
    }
}

void TypeWriter::write_types() {
    std::vector<BtfId> numbers;
    std::vector<BtfId> enumerations;
    std::vector<BtfId> others;
    for (BtfId id = btf_.first_own_id(); id <= btf_.last_id(); ++id) {
        const auto type = *btf_.type(id);
        if (!has_home(type) || homes_[id] != 0) continue;
        auto& list = is_number(id) ? numbers : is_enumeration(type) ? enumerations : others;
        list.push_back(id);
    }
    write_units_of(numbers, numbers.size());
    write_units_of(enumerations, enumerations_per_unit);
    write_units_of(others, 1);
}

Result<void> TypeWriter::finish() {
    for (std::size_t i = 0; i < queue_.size() && !full(); ++i) {
        if (homes_[queue_[i]] != 0) continue;
        begin_unit();
        write_home(queue_[i]);
        end_unit();
    }
    if (full()) {
        return fail(Errc::bad_data, "types need more than " + std::to_string(max_bytes >> 20) + " MiB");
    }
    for (const auto& fixup : to_homes_) info_.patch32(fixup.at, homes_[fixup.key]);
    to_homes_.clear();
    return {};
}

}  // namespace exo::os::dwarf
