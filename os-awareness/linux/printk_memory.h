// What the readers of both formats of the kernel's log share.
#pragma once

#include <algorithm>
#include <string>
#include <utility>

#include "os-awareness/linux/constants.h"
#include "os-awareness/linux/printk.h"
#include "os-awareness/linux/printk_layout.h"

namespace exo::os {

// Logs of up to this are read in one piece: before anything of it changes, and past any cache of pages.
inline constexpr std::uint64_t max_log_snapshot = std::uint64_t{128} << 20;

// Reads what can be read; the rest stays as it was. The result is how many bytes that is.
inline std::uint64_t read_what_is_there(AddressSpace& space, VirtualAddress address, MutableBytes out) {
    constexpr std::uint64_t page = 4096;
    std::uint64_t lost = 0;
    for (std::size_t done = 0; done < out.size();) {
        const auto got = space.read_some(address + done, out.subspan(done));
        if (got && *got != 0) {
            done += *got;
            continue;
        }
        const auto skip = std::min<std::uint64_t>(page - raw(address + done) % page, out.size() - done);
        lost += skip;
        done += skip;
    }
    return lost;
}

// `text` is not set: where it is depends on the format.
inline LogRecord log_record(ConstBytes header, const RecordLayout& layout) {
    constexpr std::uint32_t caller_is_cpu = 0x80000000;  // printk_caller_id(), 15ff2069cb7f
    LogRecord record;
    record.time_ns = layout.time.in(header).value_or(0);
    record.level = layout.level.in(header);
    record.facility = static_cast<std::uint8_t>(layout.facility.in(header).value_or(0));
    if (const auto caller = layout.caller.in(header)) {
        const auto id = static_cast<std::uint32_t>(*caller);
        record.caller = LogRecord::Caller{(id & caller_is_cpu) != 0, id & ~caller_is_cpu};
    }
    return record;
}

inline bool plausible_pointer(std::uint64_t address) { return (address & kernel_half) != 0; }

// By the name of a variable: VMCOREINFO's word for it first, since names of symbols are not unique.
inline std::optional<VirtualAddress> printk_variable(const PrintkSource& source, std::string_view name) {
    if (source.vmcoreinfo != nullptr) {
        if (const auto address = source.vmcoreinfo->symbol(name)) return address;
    }
    return source.symbols.find(name);
}

Result<KernelLog> read_printk_ring(const PrintkSource& source, VirtualAddress pointer);
Result<KernelLog> read_printk_log(const PrintkSource& source, VirtualAddress pointer);

}  // namespace exo::os
