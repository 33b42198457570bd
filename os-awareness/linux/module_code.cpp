#include "os-awareness/linux/module_code.h"

#include <algorithm>
#include <utility>

namespace exo::os {
namespace {

bool has(const Module::Range& range, VirtualAddress address) {
    return address >= range.start && raw(address) - raw(range.start) < range.size;
}

bool has(const Module& module, VirtualAddress address) {
    return std::ranges::any_of(module.memory, [&](const auto& range) { return has(range, address); });
}

}  // namespace

void ModuleCode::look() {
    if (std::exchange(current_, true)) return;
    auto known = std::exchange(entries_, {});
    for (auto& module : list_->read().modules) {
        const auto same = std::ranges::find(known, module, &Entry::module);
        if (same != known.end() && !same->gone) {
            entries_.push_back(std::move(*same));
        } else {
            entries_.push_back({.module = std::move(module), .code = {}});
        }
    }
}

const ModuleCode::Code* ModuleCode::code_of(Entry& entry) {
    if (entry.code) return &*entry.code;
    if (entry.gone) return nullptr;
    auto parts = list_->parts_of(entry.module);
    if (!parts) {
        entry.gone = true;
        return nullptr;
    }
    entry.code = Code{entry.module, std::move(parts->symbols), {}};
    if (const auto layout = orc_layout(); layout && parts->orc.count != 0) {
        if (auto table = read_orc(*image_->space, parts->orc, *layout)) entry.code->orc = *std::move(table);
    }
    return &*entry.code;
}

const ModuleCode::Code* ModuleCode::at(VirtualAddress address) {
    look();
    for (auto& entry : entries_) {
        if (has(entry.module, address)) return code_of(entry);
    }
    return nullptr;
}

std::optional<VirtualAddress> ModuleCode::find(std::string_view name) {
    look();
    for (auto& entry : entries_) {
        const auto* code = code_of(entry);
        const auto address = code != nullptr ? code->symbols.find(name) : std::nullopt;
        if (address && has(entry.module, *address)) return address;
    }
    return std::nullopt;
}

// The table tells of init code too, which is freed: its addresses may be another module's by now.
const OrcRule* ModuleCode::rule_at(VirtualAddress address) {
    const auto* code = at(address);
    if (code == nullptr || !code->orc) return nullptr;
    for (const auto& range : code->module.memory) {
        if (!range.executable || !has(range, address)) continue;
        return code->orc->rule_at(range.start, address);
    }
    return nullptr;
}

std::optional<OrcLayout> ModuleCode::orc_layout() {
    if (!std::exchange(orc_layout_known_, true)) {
        if (const auto table = summarize_kernel_orc(*image_->space, image_->symbols))
            orc_layout_ = table->layout;
    }
    return orc_layout_;
}

}  // namespace exo::os
