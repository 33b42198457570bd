#include "os-awareness/linux/modules.h"

#include <algorithm>
#include <cctype>
#include <cstring>

#include "os-awareness/elf/format.h"
#include "os-awareness/linux/constants.h"
#include "os-awareness/linux/list_walk.h"

namespace exo::os {
namespace {

// enum module_state (include/linux/module.h).
constexpr std::uint64_t state_live = 0;
constexpr std::uint64_t state_coming = 1;
constexpr std::uint64_t last_state = 3;

constexpr std::uint64_t max_module_bytes = std::uint64_t{1} << 30;  // of one range; they share 1.5 GiB
constexpr std::uint64_t max_symbols = 500'000;                      // of one module; amdgpu has 40 000
constexpr std::size_t max_name_bytes = std::size_t{32} << 20;       // of all of them
constexpr std::size_t max_symbol_name = 1024;

bool is_name_byte(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-' || c == '.';
}

// A module's name becomes part of a path and of XML.
std::string name_of(ConstBytes bytes) {
    std::string name;
    for (const std::byte byte : bytes) {
        const char c = static_cast<char>(byte);
        if (c == '\0') break;
        name += is_name_byte(c) ? c : '?';
    }
    return name;
}

Result<ListWalk> walk_ring(AddressSpace& space, std::uint64_t head, std::size_t limit) {
    const auto links = [&](std::uint64_t node) { return space.read_value<ListLinks>(VirtualAddress{node}); };
    return walk_list(head, TRY(links(head)), limit, links);
}

void add_range(Module& module, Module::Range range) {
    const bool in_kernel = (raw(range.start) & kernel_half) != 0;
    if (range.size == 0 || range.size > max_module_bytes || !in_kernel) return;
    module.size += range.size;
    module.memory.push_back(range);
}

// The names of all symbols: the table's size is not kept, so it ends after the last name that is used.
Result<std::vector<std::byte>> read_names(AddressSpace& space, std::uint64_t address,
                                          std::span<const elf::SymbolEntry> entries) {
    std::size_t last = 0;
    for (const auto& entry : entries) last = std::max<std::size_t>(last, entry.name);
    if (last > max_name_bytes) {
        return fail(Errc::bad_data, "names of symbols in " + std::to_string(last) + " bytes");
    }
    std::vector<std::byte> names(last + max_symbol_name);
    names.resize(TRY(space.read_some(VirtualAddress{address}, names)));
    return names;
}

std::string_view name_at(ConstBytes names, std::size_t offset) {
    if (offset >= names.size()) return {};
    const auto rest = names.subspan(offset, std::min(names.size() - offset, max_symbol_name));
    const auto end = std::ranges::find(rest, std::byte{0});
    if (end == rest.end()) return {};
    return {reinterpret_cast<const char*>(rest.data()), static_cast<std::size_t>(end - rest.begin())};
}

}  // namespace

ModuleList::ModuleList(KernelImage& image, const Btf* btf) : image_(&image) {
    if (btf == nullptr) {
        why_not_ = "no BTF to tell where struct module has its fields";
        return;
    }
    layout_ = ModuleLayout::from(*btf);
    why_not_ = layout_.missing;
    const auto head = image.symbols.find("modules");
    if (!head) why_not_ = "no symbol modules";
    if (why_not_.empty()) head_ = raw(*head);
}

OsAwareness::Modules ModuleList::read() {
    OsAwareness::Modules result;
    if (head_ == 0) {
        result.problems.push_back("modules are not known: " + why_not_);
        return result;
    }
    const auto walk = walk_ring(*image_->space, head_, max_modules);
    if (!walk) {
        result.problems.push_back("the list of modules: " + walk.error().message);
        return result;
    }
    if (!walk->broken.empty()) result.problems.push_back("the list of modules: " + walk->broken);
    for (const auto node : walk->nodes) {
        const auto address = node - layout_.list.offset;
        const auto bytes = read_module(address);
        std::string problem;
        if (!bytes) {
            problem = bytes.error().message;
        } else if (auto module = describe(address, *bytes, problem)) {
            result.modules.push_back(*std::move(module));
        }
        if (!problem.empty()) result.problems.push_back("the module at " + hex(address) + ": " + problem);
    }
    return result;
}

Result<std::vector<std::byte>> ModuleList::read_module(std::uint64_t address) {
    std::vector<std::byte> bytes(layout_.read_size);
    CHECK_OK(image_->space->read(VirtualAddress{address}, bytes));
    return bytes;
}

std::optional<Module> ModuleList::describe(std::uint64_t address, ConstBytes bytes,
                                           std::string& problem) const {
    const auto state = layout_.state.in(bytes).value_or(last_state + 1);
    if (state > last_state) problem = "its state is " + std::to_string(state);
    if (state != state_live && state != state_coming) return std::nullopt;
    Module module{.address = VirtualAddress{address},
                  .name = name_of(bytes.subspan(layout_.name.offset, layout_.name.size)),
                  .memory = {},
                  .initialising = state == state_coming};
    // Less the one that the list has itself (MODULE_REF_BASE, kernel/module/main.c).
    const auto references = layout_.refcount.in(bytes).value_or(0);
    module.users = references == 0 ? 0 : static_cast<std::uint32_t>(references - 1);
    if (layout_.mem) {
        add_memory(module, bytes);
    } else {
        add_block(module, bytes, layout_.core, false);
        if (module.initialising) add_block(module, bytes, layout_.init, true);
    }
    std::ranges::sort(module.memory, {}, &Module::Range::start);
    const auto overlaps = [](const Module::Range& a, const Module::Range& b) {
        return b.start < a.start + a.size;
    };
    if (module.name.empty() || module.memory.empty() ||
        std::ranges::adjacent_find(module.memory, overlaps) != module.memory.end()) {
        problem = "its name or its memory makes no sense";
        return std::nullopt;
    }
    return module;
}

void ModuleList::add_memory(Module& module, ConstBytes bytes) const {
    for (const auto& kind : layout_.mem_kinds) {
        if (!kind.index || (kind.init && !module.initialising)) continue;
        const std::size_t at = layout_.mem.offset + std::size_t{*kind.index} * layout_.mem_size;
        if (at >= bytes.size()) continue;
        const auto one = bytes.subspan(at);
        add_range(module, {.section = kind.section,
                           .start = VirtualAddress{layout_.mem_base.in(one).value_or(0)},
                           .size = layout_.mem_bytes.in(one).value_or(0),
                           .executable = kind.executable,
                           .writable = kind.writable});
    }
}

void ModuleList::add_block(Module& module, ConstBytes bytes, const ModuleLayout::Block& block,
                           bool init) const {
    const auto base = block.base.in(bytes).value_or(0);
    const auto size = block.size.in(bytes).value_or(0);
    const auto text = std::min(block.text_size.in(bytes).value_or(0), size);
    const auto constants = std::clamp(block.ro_size.in(bytes).value_or(text), text, size);
    add_range(module, {.section = init ? ".init.text" : ".text",
                       .start = VirtualAddress{base},
                       .size = text,
                       .executable = true});
    add_range(module, {.section = init ? ".init.rodata" : ".rodata",
                       .start = VirtualAddress{base + text},
                       .size = constants - text});
    add_range(module, {.section = init ? ".init.data" : ".data",
                       .start = VirtualAddress{base + constants},
                       .size = size - constants,
                       .writable = true});
}

Result<ModuleList::Parts> ModuleList::parts_of(const Module& module) {
    if (head_ == 0) return fail(Errc::not_found, "modules are not known: " + why_not_);
    const auto bytes = TRY(read_module(raw(module.address)));
    std::string problem;
    if (describe(raw(module.address), bytes, problem) != module) {
        return fail(Errc::not_found, "the module " + module.name + " is not what it was any more");
    }
    Parts parts;
    if (auto symbols = read_symbols(layout_.kallsyms.in(bytes).value_or(0))) {
        parts.symbols = *std::move(symbols);
    } else {
        parts.problems.push_back("no symbols: " + symbols.error().message);
        parts.symbols.finish();
    }
    parts.orc = {.ips = VirtualAddress{layout_.orc_ips.in(bytes).value_or(0)},
                 .entries = VirtualAddress{layout_.orc_entries.in(bytes).value_or(0)},
                 .count = layout_.num_orcs.in(bytes).value_or(0)};
    if (auto types = read_types(module)) {
        parts.btf = *std::move(types);
    } else {
        parts.problems.push_back("no types: " + types.error().message);
    }
    return parts;
}

Result<SymbolTable> ModuleList::read_symbols(std::uint64_t kallsyms) {
    const auto& layout = layout_.symbols;
    if (layout.size == 0) return fail(Errc::not_found, "no struct mod_kallsyms in BTF");
    auto& space = *image_->space;
    std::vector<std::byte> tables(layout.size);
    CHECK_OK(space.read(VirtualAddress{kallsyms}, tables));
    const auto count = layout.num_symtab.in(tables).value_or(0);
    if (count > max_symbols) return fail(Errc::bad_data, std::to_string(count) + " symbols");
    std::vector<elf::SymbolEntry> entries(count);
    CHECK_OK(space.read(VirtualAddress{layout.symtab.in(tables).value_or(0)},
                        std::as_writable_bytes(std::span{entries})));
    const auto names = TRY(read_names(space, layout.strtab.in(tables).value_or(0), entries));
    // nm's letters have a table of their own from 5.2 on (1c7651f43777); in st_info before.
    std::vector<char> letters;
    if (layout.typetab) {
        letters.resize(count);
        CHECK_OK(space.read(VirtualAddress{layout.typetab.in(tables).value_or(0)},
                            std::as_writable_bytes(std::span{letters})));
    } else {
        for (const auto& entry : entries) letters.push_back(static_cast<char>(entry.info));
    }
    SymbolTable symbols;
    symbols.reserve(count, names.size());
    for (std::size_t i = 0; i < count; ++i) {
        const auto name = name_at(names, entries[i].name);
        if (!name.empty()) symbols.add(VirtualAddress{entries[i].value}, letters[i], name);
    }
    symbols.finish();
    return symbols;
}

// struct module.btf_data is taken away once the module is live; what the kernel has made of it is in the ring
// btf_modules (kernel/bpf/btf.c: btf_module_notify), with ids and strings on the kernel's own BTF.
Result<std::vector<std::byte>> ModuleList::read_types(const Module& module) {
    const auto& layout = layout_.types;
    const auto head = image_->symbols.find("btf_modules");
    if (!head || !layout.list || !layout.module || !layout.btf || !layout.data || !layout.data_size) {
        return fail(Errc::not_found, "a kernel without BTF of modules (CONFIG_DEBUG_INFO_BTF_MODULES)");
    }
    auto& space = *image_->space;
    const auto walk = TRY(walk_ring(space, raw(*head), max_modules));
    const auto value = [&](std::uint64_t address, const Field& field) -> Result<std::uint64_t> {
        std::array<std::byte, sizeof(std::uint64_t)> bytes{};
        const auto out = std::span{bytes}.first(std::min<std::size_t>(field.size, bytes.size()));
        CHECK_OK(space.read(VirtualAddress{address + field.offset}, out));
        return Field{0, static_cast<std::uint32_t>(out.size())}.in(bytes).value_or(0);
    };
    for (const auto node : walk.nodes) {
        const auto entry = node - layout.list.offset;
        const auto owner = value(entry, layout.module);
        if (!owner || *owner != raw(module.address)) continue;
        const auto btf = TRY(value(entry, layout.btf));
        const auto size = TRY(value(btf, layout.data_size));
        if (size > Btf::max_bytes) return fail(Errc::bad_data, "BTF of " + std::to_string(size) + " bytes");
        std::vector<std::byte> blob(size);
        CHECK_OK(space.read(VirtualAddress{TRY(value(btf, layout.data))}, blob));
        return blob;
    }
    return fail(Errc::not_found, "the module has no BTF");
}

}  // namespace exo::os
