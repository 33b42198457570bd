// The kernel's log out of its memory, in both formats that it has had.
#pragma once

#include "os-awareness/linux/btf.h"
#include "os-awareness/linux/vmcoreinfo.h"
#include "os-awareness/os.h"
#include "os-awareness/symbols.h"

namespace exo::os {

struct PrintkSource {
    AddressSpace& space;  // the kernel's
    const SymbolTable& symbols;
    const Btf* btf;                // null where there is none
    const VmCoreInfo* vmcoreinfo;  // null where there is none
};

// More than any log has records; of a longer one the newest.
inline constexpr std::uint64_t max_log_records = std::uint64_t{1} << 20;

// The log may be written meanwhile: a record is taken only if it was whole before and after it was read.
// not_found or unsupported where it cannot be told where the log is; bad_data where it is no log.
Result<KernelLog> read_kernel_log(const PrintkSource& source);

}  // namespace exo::os
