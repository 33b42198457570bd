// Reads back what ElfWriter writes.
#pragma once

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/memory.h"
#include "os-awareness/elf/format.h"

namespace exo::test {

class ElfReader {
public:
    explicit ElfReader(ConstBytes file) : file_(file) {}

    template <class T>
    [[nodiscard]] T at(std::uint64_t offset) const {
        T value{};
        const auto bytes = file_.subspan(offset, sizeof value);
        std::memcpy(&value, bytes.data(), sizeof value);
        return value;
    }
    [[nodiscard]] os::elf::FileHeader header() const { return at<os::elf::FileHeader>(0); }
    [[nodiscard]] os::elf::SegmentHeader segment() const {
        return at<os::elf::SegmentHeader>(header().segments_at);
    }
    [[nodiscard]] os::elf::SectionHeader section(std::size_t index) const {
        return at<os::elf::SectionHeader>(header().sections_at + index * sizeof(os::elf::SectionHeader));
    }
    [[nodiscard]] std::string section_name(std::size_t index) const {
        return text(section(header().section_names).offset + section(index).name);
    }
    // 0 if there is none.
    [[nodiscard]] std::size_t find(std::string_view name) const {
        for (std::size_t i = 1; i < header().sections; ++i) {
            if (section_name(i) == name) return i;
        }
        return 0;
    }
    [[nodiscard]] ConstBytes content(std::string_view name) const {
        const auto index = find(name);
        if (index == 0) return {};
        return file_.subspan(section(index).offset, section(index).size);
    }
    struct NamedSymbol {
        std::string name;
        os::elf::SymbolEntry entry;
    };
    // Without the null one.
    [[nodiscard]] std::vector<NamedSymbol> symbols() const {
        const auto table = section(find(".symtab"));
        const auto names = section(table.link).offset;
        std::vector<NamedSymbol> found;
        for (auto at = sizeof(os::elf::SymbolEntry); at < table.size; at += sizeof(os::elf::SymbolEntry)) {
            const auto entry = this->at<os::elf::SymbolEntry>(table.offset + at);
            found.push_back({text(names + entry.name), entry});
        }
        return found;
    }

private:
    [[nodiscard]] std::string text(std::uint64_t offset) const {
        const auto rest = file_.subspan(offset);
        const auto* begin = reinterpret_cast<const char*>(rest.data());
        return {begin, strnlen(begin, rest.size())};
    }

    ConstBytes file_;
};

}  // namespace exo::test
