#include "os-awareness/elf/dynamic_symbols.h"

#include "os-awareness/elf/format.h"

namespace exo::os {
namespace {

constexpr std::uint32_t most_entries = 512;   // of a dynamic section, which has some thirty
constexpr std::uint32_t most_chained = 4096;  // symbols of one bucket

struct GnuHashHeader {
    std::uint32_t buckets = 0;
    std::uint32_t first_symbol = 0;  // that is in the table
    std::uint32_t bloom_words = 0;   // of 64 bits
    std::uint32_t bloom_shift = 0;
};

std::uint32_t gnu_hash(std::string_view name) {
    std::uint32_t hash = 5381;
    for (const char c : name) hash = hash * 33 + static_cast<std::uint8_t>(c);
    return hash;
}

std::uint32_t sysv_hash(std::string_view name) {
    std::uint32_t hash = 0;
    for (const char c : name) {
        hash = (hash << 4U) + static_cast<std::uint8_t>(c);
        const std::uint32_t high = hash & 0xf0000000U;
        hash = (hash ^ (high >> 24U)) & ~high;
    }
    return hash;
}

tl::unexpected<Error> no_symbol(std::string_view name) {
    return fail(Errc::not_found, "it defines no symbol " + std::string{name});
}

}  // namespace

Result<DynamicSymbols> DynamicSymbols::read(AddressSpace& space, VirtualAddress dynamic, std::uint64_t bias) {
    DynamicSymbols found{space, bias};
    std::uint32_t entries = 0;
    for (;; ++entries) {
        if (entries == most_entries)
            return fail(Errc::bad_data, "the dynamic section at " + hex(dynamic) + " has no end");
        const auto entry =
            TRY(space.read_value<elf::DynamicEntry>(dynamic + entries * sizeof(elf::DynamicEntry)));
        if (entry.tag == elf::dynamic_null) break;
        // glibc has made addresses absolute (elf/get-dynamic-info.h), musl has not.
        const VirtualAddress address{entry.value < bias ? entry.value + bias : entry.value};
        switch (entry.tag) {
            case elf::dynamic_symtab: found.symbols_ = address; break;
            case elf::dynamic_strtab: found.names_ = address; break;
            case elf::dynamic_strsz: found.names_size_ = entry.value; break;
            case elf::dynamic_gnu_hash: found.gnu_hash_ = address; break;
            case elf::dynamic_hash: found.hash_ = address; break;
            default: break;
        }
    }
    if (raw(found.symbols_) == 0 || raw(found.names_) == 0 ||
        (raw(found.gnu_hash_) == 0 && raw(found.hash_) == 0))
        return fail(Errc::bad_data, "the dynamic section at " + hex(dynamic) + " tells of no symbols");
    return found;
}

Result<VirtualAddress> DynamicSymbols::find(std::string_view name) const {
    return raw(gnu_hash_) != 0 ? find_by_gnu_hash(name) : find_by_hash(name);
}

// Without the Bloom filter, which only says sooner that there is none.
Result<VirtualAddress> DynamicSymbols::find_by_gnu_hash(std::string_view name) const {
    const auto header = TRY(space_->read_value<GnuHashHeader>(gnu_hash_));
    if (header.buckets == 0) return no_symbol(name);
    const std::uint32_t hash = gnu_hash(name);
    const VirtualAddress buckets = gnu_hash_ + sizeof header + std::uint64_t{8} * header.bloom_words;
    const VirtualAddress chains = buckets + std::uint64_t{4} * header.buckets;
    auto index = TRY(space_->read_value<std::uint32_t>(buckets + std::uint64_t{4} * (hash % header.buckets)));
    if (index < header.first_symbol) return no_symbol(name);  // an empty bucket
    for (std::uint32_t count = 0; count < most_chained; ++count, ++index) {
        const auto chained =
            TRY(space_->read_value<std::uint32_t>(chains + std::uint64_t{4} * (index - header.first_symbol)));
        if ((chained | 1U) == (hash | 1U)) {
            if (const auto value = TRY(value_if_named(index, name))) return *value;
        }
        if ((chained & 1U) != 0) return no_symbol(name);
    }
    return fail(Errc::bad_data, "a chain of the symbol table at " + hex(gnu_hash_) + " has no end");
}

Result<VirtualAddress> DynamicSymbols::find_by_hash(std::string_view name) const {
    const auto buckets = TRY(space_->read_value<std::uint32_t>(hash_));
    if (buckets == 0) return no_symbol(name);
    const VirtualAddress first = hash_ + 8;
    const VirtualAddress chains = first + std::uint64_t{4} * buckets;
    auto index =
        TRY(space_->read_value<std::uint32_t>(first + std::uint64_t{4} * (sysv_hash(name) % buckets)));
    for (std::uint32_t count = 0; count < most_chained; ++count) {
        if (index == 0) return no_symbol(name);
        if (const auto value = TRY(value_if_named(index, name))) return *value;
        index = TRY(space_->read_value<std::uint32_t>(chains + std::uint64_t{4} * index));
    }
    return fail(Errc::bad_data, "a chain of the symbol table at " + hex(hash_) + " has no end");
}

Result<std::optional<VirtualAddress>> DynamicSymbols::value_if_named(std::uint32_t index,
                                                                     std::string_view name) const {
    const auto symbol =
        TRY(space_->read_value<elf::SymbolEntry>(symbols_ + std::uint64_t{index} * sizeof(elf::SymbolEntry)));
    if (symbol.section == 0 || symbol.name >= names_size_) return std::nullopt;
    std::string own(name.size() + 1, '\0');
    CHECK_OK(space_->read(names_ + symbol.name, std::as_writable_bytes(std::span{own})));
    if (own.back() != '\0' || !own.starts_with(name)) return std::nullopt;
    return VirtualAddress{symbol.value + bias_};
}

}  // namespace exo::os
