#include <algorithm>
#include <array>

#include "os-awareness/linux/modules.h"

namespace exo::os {
namespace {

constexpr std::uint32_t max_struct_bytes = 1U << 20U;

// The first of `paths` that the type has; a path that is null ends them.
struct ModuleField {
    Field& (*field)(ModuleLayout&);
    const char* type;
    std::array<const char*, 2> paths;  // newest first
};

// NOLINTNEXTLINE(bugprone-macro-parentheses): a member's name cannot stand in parentheses
#define MODULE_FIELD(member) [](ModuleLayout& l) -> Field& { return l.member; }

// clang-format off
const ModuleField module_fields[] = {
    {MODULE_FIELD(list), "module", {"list"}},
    {MODULE_FIELD(name), "module", {"name"}},
    {MODULE_FIELD(state), "module", {"state"}},
    {MODULE_FIELD(refcount), "module", {"refcnt.counter"}},
    {MODULE_FIELD(kallsyms), "module", {"kallsyms"}},
    {MODULE_FIELD(num_orcs), "module", {"arch.num_orcs"}},
    {MODULE_FIELD(orc_ips), "module", {"arch.orc_unwind_ip"}},
    {MODULE_FIELD(orc_entries), "module", {"arch.orc_unwind"}},
    // ac3b43283923 (6.4): several ranges, each of its kind, in place of two blocks.
    {MODULE_FIELD(mem), "module", {"mem"}},
    {MODULE_FIELD(mem_base), "module_memory", {"base"}},
    {MODULE_FIELD(mem_bytes), "module_memory", {"size"}},
    // 7523e4dc5057 (4.5) made the blocks structures.
    {MODULE_FIELD(core.base), "module", {"core_layout.base", "module_core"}},
    {MODULE_FIELD(core.size), "module", {"core_layout.size", "core_size"}},
    {MODULE_FIELD(core.text_size), "module", {"core_layout.text_size", "core_text_size"}},
    {MODULE_FIELD(core.ro_size), "module", {"core_layout.ro_size", "core_ro_size"}},
    {MODULE_FIELD(init.base), "module", {"init_layout.base", "module_init"}},
    {MODULE_FIELD(init.size), "module", {"init_layout.size", "init_size"}},
    {MODULE_FIELD(init.text_size), "module", {"init_layout.text_size", "init_text_size"}},
    {MODULE_FIELD(init.ro_size), "module", {"init_layout.ro_size", "init_ro_size"}},
    {MODULE_FIELD(symbols.symtab), "mod_kallsyms", {"symtab"}},
    {MODULE_FIELD(symbols.num_symtab), "mod_kallsyms", {"num_symtab"}},
    {MODULE_FIELD(symbols.strtab), "mod_kallsyms", {"strtab"}},
    {MODULE_FIELD(symbols.typetab), "mod_kallsyms", {"typetab"}},
    {MODULE_FIELD(types.list), "btf_module", {"list"}},
    {MODULE_FIELD(types.module), "btf_module", {"module"}},
    {MODULE_FIELD(types.btf), "btf_module", {"btf"}},
    {MODULE_FIELD(types.data), "btf", {"data"}},
    {MODULE_FIELD(types.data_size), "btf", {"data_size"}},
};

struct KindRow {
    const char* enumerator;  // of enum mod_mem_type
    ModuleLayout::MemoryKind kind;
};
constexpr KindRow memory_kinds[] = {
    {"MOD_TEXT", {".text", true, false, false, {}}},
    {"MOD_DATA", {".data", false, true, false, {}}},
    {"MOD_RODATA", {".rodata", false, false, false, {}}},
    {"MOD_RO_AFTER_INIT", {".data..ro_after_init", false, true, false, {}}},
    {"MOD_INIT_TEXT", {".init.text", true, false, true, {}}},
    {"MOD_INIT_DATA", {".init.data", false, true, true, {}}},
    {"MOD_INIT_RODATA", {".init.rodata", false, false, true, {}}},
};
// clang-format on

#undef MODULE_FIELD

std::uint32_t size_of_struct(const Btf& btf, std::string_view name) {
    const auto type = btf.find(name, BtfKind::structure);
    return type && type->size_or_type <= max_struct_bytes ? type->size_or_type : 0;
}

}  // namespace

ModuleLayout ModuleLayout::from(const Btf& btf) {
    ModuleLayout layout;
    for (const auto& row : module_fields) {
        auto& field = row.field(layout);
        for (const auto* path : row.paths) {
            if (path != nullptr && !field) field = field_in(btf, row.type, path).value_or(Field{});
        }
    }
    layout.mem_size = size_of_struct(btf, "module_memory");
    layout.symbols.size = size_of_struct(btf, "mod_kallsyms");
    for (std::size_t i = 0; i < std::size(memory_kinds); ++i) {
        layout.mem_kinds.at(i) = memory_kinds[i].kind;
        const auto index = btf.enumerator("mod_mem_type", memory_kinds[i].enumerator);
        if (!index || *index < 0 || layout.mem_size == 0) continue;
        if (static_cast<std::uint64_t>(*index) < layout.mem.size / layout.mem_size) {
            layout.mem_kinds.at(i).index = static_cast<std::uint32_t>(*index);
        }
    }
    for (const auto* field :
         {&layout.list, &layout.name, &layout.state, &layout.refcount, &layout.kallsyms, &layout.num_orcs,
          &layout.orc_ips, &layout.orc_entries, &layout.mem, &layout.core.base, &layout.core.size,
          &layout.core.text_size, &layout.core.ro_size, &layout.init.base, &layout.init.size,
          &layout.init.text_size, &layout.init.ro_size}) {
        layout.read_size = std::max(layout.read_size, field->offset + field->size);
    }
    const bool placed = layout.mem ? bool{layout.mem_base} && bool{layout.mem_bytes}
                                   : bool{layout.core.base} && bool{layout.core.size};
    if (!layout.list || !layout.name || !layout.state || !placed) {
        layout.missing = "struct module has not the fields that are known";
    }
    return layout;
}

}  // namespace exo::os
