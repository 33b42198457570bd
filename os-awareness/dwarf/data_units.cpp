#include "os-awareness/dwarf/data_units.h"

#include <algorithm>
#include <set>

#include "os-awareness/dwarf/code_units.h"
#include "os-awareness/dwarf/constants.h"

namespace exo::os::dwarf {
namespace {

constexpr std::string_view per_cpu_section = ".data..percpu";

class VariableFinder {
public:
    VariableFinder(TypeWriter& types, const SymbolGroup& group)
        : types_(types), group_(group), per_cpu_start_(group.symbols->find("__per_cpu_start")) {}

    void add_section(const BtfType& section);
    void add_known(const KnownGlobal& known);
    VariableSites take() { return std::move(found_); }

private:
    // A site that has a place, but no type yet.
    [[nodiscard]] std::optional<VariableSite> place(std::string_view name) const;
    [[nodiscard]] VariableSite site_at(VirtualAddress address) const;

    TypeWriter& types_;
    const SymbolGroup& group_;
    std::optional<VirtualAddress> per_cpu_start_;
    std::set<std::string, std::less<>> names_;
    VariableSites found_;
};

// As .symtab has it: without the slide in the image, as it is elsewhere.
VariableSite VariableFinder::site_at(VirtualAddress address) const {
    const auto linked = raw(address) - group_.slide;
    const bool absolute = section_of(group_.sections, linked) < 0;
    return {.address = absolute ? raw(address) : linked, .absolute = absolute};
}

std::optional<VariableSite> VariableFinder::place(std::string_view name) const {
    const auto symbol = group_.symbols->find_unique(name);
    if (!symbol) return std::nullopt;
    auto site = site_at(symbol->address);
    // The section tells code from data; the letter does not: .data of a 7.2 has the flag of code.
    const auto section = site.absolute ? -1 : section_of(group_.sections, site.address);
    const bool code = section >= 0 && group_.sections[static_cast<std::size_t>(section)].executable;
    if (code && is_code(symbol->type)) return std::nullopt;
    site.external = symbol->type >= 'A' && symbol->type <= 'Z';
    return site;
}

void VariableFinder::add_section(const BtfType& section) {
    const auto& btf = types_.btf();
    for (std::uint32_t i = 0; i < section.count; ++i) {
        const auto entry = btf.section_variable(section, i);
        const auto variable = btf.type(entry.variable);
        if (!variable || variable->kind != BtfKind::variable) continue;
        const auto name = btf.name(*variable);
        const auto type = types_.usable(variable->size_or_type);
        auto site = place(name);
        // pahole writes offsets from the section's beginning, whatever its address.
        if (!site && per_cpu_start_ && btf.name(section) == per_cpu_section) {
            site = site_at(*per_cpu_start_ + entry.offset);
        }
        if (type == 0 || name.empty() || !site) {
            ++found_.unplaced;
            continue;
        }
        names_.emplace(name);
        site->name = variable->name;
        site->type = type;
        found_.sites.push_back(*site);
    }
}

void VariableFinder::add_known(const KnownGlobal& known) {
    auto site = place(known.symbol);
    const auto type = types_.btf().find(known.type, known.kind);
    if (!site || !type || names_.contains(known.symbol)) return;
    site->type = types_.usable(type->id);
    if (site->type == 0) return;
    site->name = types_.add_string(known.symbol);
    site->wrap = known.wrap;
    found_.sites.push_back(*site);
}

// gdb moves the operand of DW_OP_addr with .text. It enters what begins with a constant into its map of code
// (dwarf2/read.c, scan_attributes and decode_locdesc), and then warns that there is none; a nop before it
// hides it.
void write_location(ByteBuffer& info, const VariableSite& site) {
    if (!site.absolute) {
        info.uleb(1 + sizeof site.address);
        info.u8(op_addr);
    } else {
        info.uleb(2 + sizeof site.address);
        info.u8(op_nop);
        info.u8(op_const8u);
    }
    info.u64(site.address);
}

// The type's offset in .debug_info; 0 if none needs to be made.
std::uint32_t write_wrap(TypeWriter& types, const VariableSite& site) {
    auto& info = types.info();
    if (site.wrap == Wrap::none) return 0;
    auto at = static_cast<std::uint32_t>(info.size());
    if (site.wrap == Wrap::pointer) {
        types.put(Shape::pointer);
        types.reference(site.type, true);
        return at;
    }
    const auto element = at;
    if (site.wrap == Wrap::const_array) {
        types.put(Shape::const_type);
        types.reference(site.type);
        at = static_cast<std::uint32_t>(info.size());
    }
    types.put(Shape::array);
    if (site.wrap == Wrap::const_array) {
        info.u32(element);
    } else {
        types.reference(site.type);
    }
    types.put(Shape::subrange_open);
    types.put(Shape::end);
    return at;
}

}  // namespace

VariableSites find_variables(TypeWriter& types, const SymbolGroup& group) {
    VariableFinder finder{types, group};
    const auto& btf = types.btf();
    for (BtfId id = btf.first_own_id(); id <= btf.last_id(); ++id) {
        const auto type = *btf.type(id);
        if (type.kind == BtfKind::data_section) finder.add_section(type);
    }
    // A module has other things by these names, if it has them.
    if (btf.first_own_id() == 1) {
        for (const auto& known : known_globals()) finder.add_known(known);
    }
    return finder.take();
}

void write_variables(TypeWriter& types, std::span<const VariableSite> sites) {
    auto& info = types.info();
    for (const auto& site : sites) {
        if (types.full()) return;
        types.begin_unit();
        const auto wrapped = write_wrap(types, site);
        types.put(site.external ? Shape::variable : Shape::variable_static);
        types.put_name(site.name);
        if (wrapped != 0) {
            info.u32(wrapped);
        } else {
            types.reference(site.type);
        }
        write_location(info, site);
        types.end_unit();
    }
}

}  // namespace exo::os::dwarf
