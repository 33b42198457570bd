// VMCOREINFO: the KEY=VALUE page that Linux keeps for crash dumpers (kernel/vmcore_info.c, in
// kernel/crash_core.c or kernel/kexec.c before). Present from subsys_initcall on, where it is configured.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "backends/api/memory.h"

namespace exo::os {

class VmCoreInfo {
public:
    // `text` as found: up to the first NUL. bad_data unless it begins with OSRELEASE= and every line is
    // KEY=VALUE in printable ASCII. An unfinished last line is dropped: the page may be cut off.
    static Result<VmCoreInfo> parse(std::string_view text);

    [[nodiscard]] std::optional<std::string_view> find(std::string_view key) const;
    [[nodiscard]] std::string_view release() const;  // OSRELEASE

    [[nodiscard]] std::optional<VirtualAddress> symbol(std::string_view name) const;  // SYMBOL(name)
    // Of each SYMBOL(name) line that is well-formed.
    void for_each_symbol(const std::function<void(std::string_view name, VirtualAddress)>& visit) const;
    [[nodiscard]] std::optional<std::uint64_t> number(std::string_view name) const;  // NUMBER(name)
    [[nodiscard]] std::optional<std::uint64_t> kernel_offset() const;                // KERNELOFFSET
    // OFFSET(type.member), SIZE(type), LENGTH(name): decimal, as number().
    [[nodiscard]] std::optional<std::uint64_t> offset(std::string_view member) const;
    [[nodiscard]] std::optional<std::uint64_t> size(std::string_view type) const;

private:
    std::map<std::string, std::string, std::less<>> values_;
};

// The text through vmcoreinfo_data, a pointer to the page, at `pointer` in `space`.
Result<VmCoreInfo> read_vmcoreinfo(AddressSpace& space, VirtualAddress pointer);

// For a kernel without data symbols: each page of RAM that begins with such a text, until `accept` returns
// true. Copies of former kernels are there too. not_found if none is accepted.
Result<VmCoreInfo> scan_for_vmcoreinfo(PhysicalMemory& memory,
                                       const std::function<bool(const VmCoreInfo&)>& accept);

}  // namespace exo::os
