#include "os-awareness/dwarf/code_units.h"

#include <algorithm>

#include "os-awareness/dwarf/constants.h"
#include "os-awareness/dwarf/entry_code.h"

namespace exo::os::dwarf {
namespace {

// A debugger reads a unit as a whole for one address in it.
constexpr std::size_t functions_per_unit = 64;
// The longest start of a function that entry_bytes() can know is shorter.
constexpr std::size_t entry_window = 48;
// None is as large. Without the bound a hole in the symbols would belong to the function before it.
constexpr std::uint64_t max_function_bytes = 1U << 20;

// Neighbours share reads.
class CodeWindow {
public:
    explicit CodeWindow(const ReadCode& read) : read_(read) {}

    ConstBytes at(VirtualAddress address) {
        if (!read_) return {};
        const auto offset = raw(address) - raw(start_);
        if (raw(address) < raw(start_) || offset + entry_window > valid_) {
            start_ = address;
            bytes_.resize(window_bytes);
            valid_ = std::min(read_(address, bytes_), window_bytes);
            return ConstBytes{bytes_}.first(std::min(valid_, entry_window));
        }
        return ConstBytes{bytes_}.subspan(offset, entry_window);
    }

private:
    static constexpr std::size_t window_bytes = std::size_t{16} << 10;

    const ReadCode& read_;
    VirtualAddress start_{};
    std::size_t valid_ = 0;
    std::vector<std::byte> bytes_;
};

class FunctionWriter {
public:
    FunctionWriter(TypeWriter& types, std::uint64_t slide, const ReadCode& read_code, ByteBuffer& loclists)
        : types_(types), slide_(slide), code_(read_code), loclists_(loclists) {}

    void write(const FunctionSite& site, std::uint64_t unit_start);

private:
    void write_parameters(const BtfType& prototype, std::uint64_t offset_in_unit, std::uint32_t entry);
    std::uint64_t write_list(const ArgumentRegisters& registers, std::uint64_t offset_in_unit,
                             std::uint32_t entry);

    TypeWriter& types_;
    std::uint64_t slide_;
    CodeWindow code_;
    ByteBuffer& loclists_;
};

void FunctionWriter::write(const FunctionSite& site, std::uint64_t unit_start) {
    const auto function = types_.btf().type(site.function);
    const auto prototype = function ? types_.btf().type(function->size_or_type) : std::nullopt;
    if (!prototype || prototype->kind != BtfKind::function_prototype) return;
    const auto result = types_.usable(prototype->size_or_type);
    const auto with_type = site.external ? Shape::function : Shape::function_static;
    const auto without = site.external ? Shape::function_void : Shape::function_static_void;
    types_.put(result != 0 ? with_type : without);
    types_.put_name(function->name);
    types_.info().u64(site.start);
    types_.info().u32(site.bytes);
    if (result != 0) types_.reference(result);
    const auto code = code_.at(VirtualAddress{site.start + slide_});
    write_parameters(*prototype, site.start - unit_start, std::min(entry_bytes(code), site.bytes));
    types_.put(Shape::end);
}

void FunctionWriter::write_parameters(const BtfType& prototype, std::uint64_t offset_in_unit,
                                      std::uint32_t entry) {
    const auto registers = argument_registers(types_.btf(), prototype);
    std::size_t index = 0;
    for_each_parameter(types_, prototype, [&](std::uint32_t name, BtfId type) {
        if (type == 0) return types_.put(Shape::unspecified_parameters);
        const auto where = index < registers.size() ? registers[index] : ArgumentRegisters{};
        ++index;
        const bool located = where.count != 0;
        if (types_.btf().string(name).empty()) {
            types_.put(located ? Shape::parameter_located_anonymous : Shape::parameter_anonymous);
        } else {
            types_.put(located ? Shape::parameter_located : Shape::parameter);
            types_.put_name(name);
        }
        types_.reference(type);
        if (located) types_.info().u32(write_list(where, offset_in_unit, entry));
    });
}

std::uint64_t FunctionWriter::write_list(const ArgumentRegisters& registers, std::uint64_t offset_in_unit,
                                         std::uint32_t entry) {
    const auto at = loclists_.size();
    loclists_.u8(list_offset_pair);
    loclists_.uleb(offset_in_unit);
    loclists_.uleb(offset_in_unit + entry);
    loclists_.uleb(std::uint64_t{3} * registers.count);
    for (std::uint8_t part = 0; part < registers.count; ++part) {
        loclists_.u8(op_reg0 + std::uint64_t{registers.number.at(part)});
        // One piece, too: for a register alone gdb looks into the caller's frame for what the argument was,
        // in each thread that it lists (dwarf2/loc.c, value_of_dwarf_reg_entry_block), and reads the stack
        // for that.
        loclists_.u8(op_piece);
        loclists_.uleb(8);
    }
    loclists_.u8(list_end);
    return at;
}

// Of several names the one that kallsyms lists first, as in the kernel's own backtraces.
void drop_aliases(FunctionSites& found, const Btf& btf, const SymbolGroup& group) {
    std::vector<FunctionSite> kept;
    for (const auto& site : found.sites) {
        if (kept.empty() || kept.back().start != site.start) {
            kept.push_back(site);
            continue;
        }
        ++found.aliases;
        const auto preferred = group.symbols->locate(VirtualAddress{site.start + group.slide});
        if (preferred && preferred->name == btf.name(*btf.type(site.function))) kept.back() = site;
    }
    found.sites = std::move(kept);
}

}  // namespace

bool is_code(char letter) { return letter == 't' || letter == 'T' || letter == 'w' || letter == 'W'; }

FunctionSites find_functions(const Btf& btf, const SymbolGroup& group) {
    FunctionSites found;
    const auto symbols = group.symbols->by_address();
    for (BtfId id = btf.first_own_id(); id <= btf.last_id(); ++id) {
        const auto type = *btf.type(id);
        if (type.kind != BtfKind::function) continue;
        const auto symbol = group.symbols->find_unique(btf.name(type));
        const auto start = symbol ? raw(symbol->address) - group.slide : 0;
        const auto section = symbol && is_code(symbol->type) ? section_of(group.sections, start) : -1;
        if (section < 0 || !group.sections[static_cast<std::size_t>(section)].executable) {
            ++found.unplaced;
            continue;
        }
        auto end = group.sections[static_cast<std::size_t>(section)].end;
        const auto next = std::ranges::upper_bound(symbols, symbol->address, {}, &Symbol::address);
        if (next != symbols.end()) end = std::min(end, raw(next->address) - group.slide);
        if (end <= start) continue;
        found.sites.push_back({.start = start,
                               .bytes = static_cast<std::uint32_t>(std::min(end - start, max_function_bytes)),
                               .function = id,
                               .external = symbol->type == 'T' || symbol->type == 'W'});
    }
    std::ranges::sort(found.sites, {}, [](const auto& site) { return std::pair{site.start, site.function}; });
    drop_aliases(found, btf, group);
    return found;
}

void write_functions(TypeWriter& types, std::span<const FunctionSite> sites, std::uint64_t slide,
                     const ReadCode& read_code, ByteBuffer& loclists) {
    // DWARF 5, 7.29: the length is filled in at the end.
    loclists.u32(0);
    loclists.u16(version);
    loclists.u8(address_bytes);
    loclists.u8(0);
    loclists.u32(0);
    FunctionWriter writer{types, slide, read_code, loclists};
    while (!sites.empty() && !types.full()) {
        auto count = std::min(sites.size(), functions_per_unit);
        // One that ends 4 GiB off would not fit into the unit's length.
        const auto low = sites[0].start;
        while (sites[count - 1].start - low > max_function_bytes * functions_per_unit) --count;
        const auto& last = sites[count - 1];
        types.begin_code_unit(low, static_cast<std::uint32_t>(last.start + last.bytes - low));
        for (const auto& site : sites.first(count)) writer.write(site, low);
        types.end_unit();
        sites = sites.subspan(count);
    }
    loclists.patch32(0, loclists.size() - 4);
}

}  // namespace exo::os::dwarf
