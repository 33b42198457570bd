#include "os-awareness/linux/vmcoreinfo.h"

#include <algorithm>
#include <charconv>

#include "os-awareness/scan.h"

namespace exo::os {
namespace {

bool is_printable(std::string_view text) {
    return std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~'; });
}

std::optional<std::uint64_t> number_of(std::string_view text, int base) {
    bool negative = false;
    if (base == 10 && text.starts_with('-')) {
        negative = true;
        text.remove_prefix(1);
    }
    // NUMBER()s that the kernel prints with %lx carry 0x on some architectures.
    if (text.starts_with("0x")) {
        text.remove_prefix(2);
        base = 16;
    }
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (error != std::errc{} || end != text.data() + text.size() || text.empty()) return std::nullopt;
    return negative ? 0 - value : value;
}

std::string key_of(std::string_view kind, std::string_view name) {
    std::string key{kind};
    return key.append("(").append(name).append(")");
}

constexpr std::string_view first_key = "OSRELEASE=";
constexpr std::size_t note_limit = 4096;  // VMCOREINFO_BYTES is one page
constexpr std::size_t candidates_limit = 64;

}  // namespace

Result<VmCoreInfo> VmCoreInfo::parse(std::string_view text) {
    text = text.substr(0, text.find('\0'));
    if (!text.starts_with(first_key))
        return fail(Errc::bad_data, "VMCOREINFO does not begin with OSRELEASE=");
    VmCoreInfo info;
    for (auto end = text.find('\n'); end != text.npos; end = text.find('\n')) {
        const auto line = text.substr(0, end);
        text.remove_prefix(end + 1);
        const auto equals = line.find('=');
        if (equals == line.npos || equals == 0 || !is_printable(line)) {
            return fail(Errc::bad_data, "VMCOREINFO has a line that is not KEY=VALUE");
        }
        info.values_.emplace(line.substr(0, equals), line.substr(equals + 1));
    }
    if (info.values_.empty()) return fail(Errc::bad_data, "VMCOREINFO has no whole line");
    return info;
}

std::optional<std::string_view> VmCoreInfo::find(std::string_view key) const {
    const auto it = values_.find(key);
    if (it == values_.end()) return std::nullopt;
    return it->second;
}

std::string_view VmCoreInfo::release() const { return find("OSRELEASE").value_or(""); }

std::optional<VirtualAddress> VmCoreInfo::symbol(std::string_view name) const {
    const auto text = find(key_of("SYMBOL", name));
    const auto value = text ? number_of(*text, 16) : std::nullopt;
    if (!value) return std::nullopt;
    return VirtualAddress{*value};
}

void VmCoreInfo::for_each_symbol(
    const std::function<void(std::string_view name, VirtualAddress)>& visit) const {
    constexpr std::string_view prefix = "SYMBOL(";
    for (auto it = values_.lower_bound(prefix); it != values_.end() && it->first.starts_with(prefix); ++it) {
        const std::string_view key{it->first};
        const auto value = number_of(it->second, 16);
        if (!value || !key.ends_with(')')) continue;
        visit(key.substr(prefix.size(), key.size() - prefix.size() - 1), VirtualAddress{*value});
    }
}

std::optional<std::uint64_t> VmCoreInfo::number(std::string_view name) const {
    const auto text = find(key_of("NUMBER", name));
    return text ? number_of(*text, 10) : std::nullopt;
}

std::optional<std::uint64_t> VmCoreInfo::kernel_offset() const {
    const auto text = find("KERNELOFFSET");
    return text ? number_of(*text, 16) : std::nullopt;
}

std::optional<std::uint64_t> VmCoreInfo::offset(std::string_view member) const {
    const auto text = find(key_of("OFFSET", member));
    return text ? number_of(*text, 10) : std::nullopt;
}

std::optional<std::uint64_t> VmCoreInfo::size(std::string_view type) const {
    const auto text = find(key_of("SIZE", type));
    return text ? number_of(*text, 10) : std::nullopt;
}

Result<VmCoreInfo> read_vmcoreinfo(AddressSpace& space, VirtualAddress pointer) {
    const auto page = TRY(space.read_value<std::uint64_t>(pointer));
    return VmCoreInfo::parse(TRY(space.read_string(VirtualAddress{page}, note_limit)));
}

Result<VmCoreInfo> scan_for_vmcoreinfo(PhysicalMemory& memory,
                                       const std::function<bool(const VmCoreInfo&)>& accept) {
    std::optional<VmCoreInfo> found;
    std::size_t candidates = 0;
    const auto visit = [&](PhysicalAddress at) {
        std::string text(note_limit, '\0');
        if (memory.read(at, std::as_writable_bytes(std::span{text}))) {
            auto info = VmCoreInfo::parse(text);
            if (info && accept(*info)) found = std::move(*info);
        }
        return !found && ++candidates < candidates_limit;
    };
    find_in_ram(memory, first_key, note_limit, visit);
    if (!found) return fail(Errc::not_found, "no VMCOREINFO of this kernel in RAM");
    return std::move(*found);
}

}  // namespace exo::os
