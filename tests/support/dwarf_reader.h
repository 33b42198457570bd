// Reads back what dwarf::TypeWriter writes: any DWARF 5 of its forms, by its own abbreviation table.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/memory.h"
#include "os-awareness/dwarf/constants.h"

namespace exo::test {

struct DwarfEntry {
    std::uint64_t offset = 0;
    os::dwarf::Tag tag{};
    std::size_t depth = 0;  // 0: a unit
    std::size_t unit = 0;   // number, from 0 on
    std::map<os::dwarf::Attribute, std::uint64_t> numbers;
    std::map<os::dwarf::Attribute, std::vector<std::uint8_t>> blocks;
    std::string name;
    std::string producer;

    [[nodiscard]] std::uint64_t number(os::dwarf::Attribute attribute) const;  // 0 if it has none
    [[nodiscard]] bool has(os::dwarf::Attribute attribute) const { return numbers.contains(attribute); }
};

class DwarfReader {
public:
    // Empty `problem()` if units, abbreviations, references and strings are consistent throughout.
    DwarfReader(ConstBytes abbreviations, ConstBytes info, ConstBytes strings);

    [[nodiscard]] const std::string& problem() const { return problem_; }
    [[nodiscard]] const std::vector<DwarfEntry>& entries() const { return entries_; }
    [[nodiscard]] std::size_t units() const { return units_; }

    // The one entry of that name and tag that is no declaration; null if there is none, or several.
    [[nodiscard]] const DwarfEntry* find(os::dwarf::Tag tag, std::string_view name) const;
    [[nodiscard]] const DwarfEntry* at(std::uint64_t offset) const;
    // What its DW_AT_type refers to; null for void.
    [[nodiscard]] const DwarfEntry* type_of(const DwarfEntry& entry) const;
    [[nodiscard]] std::vector<const DwarfEntry*> children(const DwarfEntry& entry) const;
    // As C would write it: "const struct list_head *", "u8 [4]", "int (char *)"; "declared struct foo".
    [[nodiscard]] std::string spell(const DwarfEntry* type) const;

private:
    class Cursor;
    struct Abbreviation {
        struct Spec {
            os::dwarf::Attribute attribute;
            os::dwarf::Form form;
            std::uint64_t constant;
        };
        os::dwarf::Tag tag{};
        bool children = false;
        std::vector<Spec> specs;
    };

    void read_abbreviations(ConstBytes bytes);
    bool read_unit(Cursor& cursor);
    void read_attributes(Cursor& cursor, const Abbreviation& abbreviation, DwarfEntry& entry);
    void check_references();
    void fail(const std::string& why);

    ConstBytes strings_;
    std::map<std::uint64_t, Abbreviation> abbreviations_;
    std::vector<DwarfEntry> entries_;
    std::size_t units_ = 0;
    std::string problem_;
};

}  // namespace exo::test
