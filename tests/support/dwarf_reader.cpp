#include "tests/support/dwarf_reader.h"

#include <algorithm>
#include <cstring>

namespace exo::test {
using os::dwarf::Attribute;
using os::dwarf::Form;
using os::dwarf::Tag;

class DwarfReader::Cursor {
public:
    explicit Cursor(ConstBytes bytes) : bytes_(bytes) {}

    std::uint64_t fixed(std::size_t size) {
        std::uint64_t value = 0;
        if (bytes_.size() - at_ < size) return overrun();
        std::memcpy(&value, &bytes_[at_], size);
        at_ += size;
        return value;
    }
    std::uint64_t uleb() {
        std::uint64_t value = 0;
        for (unsigned shift = 0; shift < 64; shift += 7) {
            const auto byte = fixed(1);
            value |= (byte & 0x7fU) << shift;
            if ((byte & 0x80U) == 0) break;
        }
        return value;
    }
    std::uint64_t sleb() {
        std::uint64_t value = 0;
        unsigned shift = 0;
        std::uint64_t byte = 0x80;
        while ((byte & 0x80U) != 0 && shift < 64) {
            byte = fixed(1);
            value |= (byte & 0x7fU) << shift;
            shift += 7;
        }
        if (shift < 64 && (byte & 0x40U) != 0) value |= ~std::uint64_t{0} << shift;
        return value;
    }
    [[nodiscard]] std::size_t at() const { return at_; }
    [[nodiscard]] bool done() const { return at_ >= bytes_.size(); }
    [[nodiscard]] bool good() const { return good_; }

private:
    std::uint64_t overrun() {
        good_ = false;
        at_ = bytes_.size();
        return 0;
    }

    ConstBytes bytes_;
    std::size_t at_ = 0;
    bool good_ = true;
};

std::uint64_t DwarfEntry::number(Attribute attribute) const {
    const auto it = numbers.find(attribute);
    return it == numbers.end() ? 0 : it->second;
}

DwarfReader::DwarfReader(ConstBytes abbreviations, ConstBytes info, ConstBytes strings) : strings_(strings) {
    read_abbreviations(abbreviations);
    Cursor cursor{info};
    while (!cursor.done() && read_unit(cursor)) {
    }
    if (!cursor.good()) fail("cut off");
    check_references();
}

void DwarfReader::fail(const std::string& why) {
    if (problem_.empty()) problem_ = why;
}

void DwarfReader::read_abbreviations(ConstBytes bytes) {
    Cursor cursor{bytes};
    while (const auto code = cursor.uleb()) {
        Abbreviation abbreviation{static_cast<Tag>(cursor.uleb()), cursor.fixed(1) != 0, {}};
        for (;;) {
            const auto attribute = static_cast<Attribute>(cursor.uleb());
            const auto form = static_cast<Form>(cursor.uleb());
            if (attribute == Attribute::none) break;
            abbreviation.specs.push_back({attribute, form, form == Form::implicit_const ? cursor.sleb() : 0});
        }
        if (!abbreviations_.emplace(code, std::move(abbreviation)).second) fail("a code twice");
    }
    if (!cursor.good() || !cursor.done()) fail("abbreviations do not end where they end");
}

bool DwarfReader::read_unit(Cursor& cursor) {
    const auto length = cursor.fixed(4);
    const auto end = cursor.at() + length;
    if (cursor.fixed(2) != os::dwarf::version) fail("version");
    if (cursor.fixed(1) != os::dwarf::unit_type_compile) fail("unit type");
    if (cursor.fixed(1) != 8) fail("address size");
    if (cursor.fixed(4) != 0) fail("offset of abbreviations");
    std::size_t depth = 0;
    while (cursor.at() < end && cursor.good()) {
        DwarfEntry entry{.offset = cursor.at(), .depth = depth, .unit = units_};
        const auto code = cursor.uleb();
        if (code == 0) {
            if (depth == 0) fail("too many ends");
            if (--depth == 0) break;
            continue;
        }
        const auto found = abbreviations_.find(code);
        if (found == abbreviations_.end()) {
            fail("unknown code " + std::to_string(code));
            return false;
        }
        entry.tag = found->second.tag;
        read_attributes(cursor, found->second, entry);
        if (found->second.children) ++depth;
        entries_.push_back(std::move(entry));
    }
    if (cursor.at() != end || depth != 0) {
        fail("unit " + std::to_string(units_) + " does not end where it says");
    }
    ++units_;
    return problem_.empty();
}

void DwarfReader::read_attributes(Cursor& cursor, const Abbreviation& abbreviation, DwarfEntry& entry) {
    for (const auto& spec : abbreviation.specs) {
        std::uint64_t value = 1;
        switch (spec.form) {
            case Form::addr: value = cursor.fixed(8); break;
            case Form::data4:
            case Form::strp:
            case Form::ref_addr:
            case Form::sec_offset: value = cursor.fixed(4); break;
            case Form::data1: value = cursor.fixed(1); break;
            case Form::sdata: value = cursor.sleb(); break;
            case Form::udata: value = cursor.uleb(); break;
            case Form::implicit_const: value = spec.constant; break;
            case Form::flag_present: break;
            case Form::exprloc:
                for (auto left = cursor.uleb(); left > 0 && cursor.good(); --left) {
                    entry.blocks[spec.attribute].push_back(static_cast<std::uint8_t>(cursor.fixed(1)));
                }
                continue;
            case Form::none: fail("no form"); break;
        }
        entry.numbers[spec.attribute] = value;
        if (spec.form != Form::strp) continue;
        if (value >= strings_.size()) {
            fail("string out of bounds");
            continue;
        }
        const auto* text = reinterpret_cast<const char*>(&strings_[value]);
        std::string& into = spec.attribute == Attribute::producer ? entry.producer : entry.name;
        into = std::string{text, strnlen(text, strings_.size() - value)};
        if (into.size() == strings_.size() - value) fail("string without an end");
    }
}

void DwarfReader::check_references() {
    for (const auto& entry : entries_) {
        if (!entry.has(Attribute::type)) continue;
        const auto* target = type_of(entry);
        if (target == nullptr || target->depth != 1) {
            return fail("reference from " + std::to_string(entry.offset) + " leads to no type");
        }
    }
}

const DwarfEntry* DwarfReader::find(Tag tag, std::string_view name) const {
    const DwarfEntry* found = nullptr;
    for (const auto& entry : entries_) {
        if (entry.tag != tag || entry.name != name || entry.has(Attribute::declaration)) continue;
        if (found != nullptr) return nullptr;
        found = &entry;
    }
    return found;
}

const DwarfEntry* DwarfReader::at(std::uint64_t offset) const {
    const auto it = std::ranges::lower_bound(entries_, offset, {}, &DwarfEntry::offset);
    return it != entries_.end() && it->offset == offset ? &*it : nullptr;
}

const DwarfEntry* DwarfReader::type_of(const DwarfEntry& entry) const {
    return entry.has(Attribute::type) ? at(entry.number(Attribute::type)) : nullptr;
}

std::vector<const DwarfEntry*> DwarfReader::children(const DwarfEntry& entry) const {
    std::vector<const DwarfEntry*> found;
    const auto first = static_cast<std::size_t>(&entry - entries_.data()) + 1;
    for (auto i = first; i < entries_.size() && entries_[i].depth > entry.depth; ++i) {
        if (entries_[i].depth == entry.depth + 1) found.push_back(&entries_[i]);
    }
    return found;
}

std::string DwarfReader::spell(const DwarfEntry* type) const {
    if (type == nullptr) return "void";
    const std::string declared = type->has(Attribute::declaration) ? "declared " : "";
    const auto inner = [&] { return spell(type_of(*type)); };
    switch (type->tag) {
        case Tag::structure_type: return declared + "struct " + type->name;
        case Tag::union_type: return declared + "union " + type->name;
        case Tag::enumeration_type: return "enum " + type->name;
        case Tag::pointer_type: return inner() + " *";
        case Tag::const_type: return "const " + inner();
        case Tag::volatile_type: return "volatile " + inner();
        case Tag::restrict_type: return "restrict " + inner();
        case Tag::array_type: {
            const auto* range = children(*type).at(0);
            const auto count = range->number(Attribute::count);
            return inner() + (count != 0 ? " [" + std::to_string(count) + "]" : " []");
        }
        case Tag::subroutine_type:
        case Tag::subprogram: {
            std::string text;
            for (const auto* parameter : children(*type)) {
                text += text.empty() ? "" : ", ";
                text += parameter->tag == Tag::unspecified_parameters ? "..." : spell(type_of(*parameter));
            }
            return inner() + " (" + text + ")";
        }
        default: return type->name;
    }
}

}  // namespace exo::test
