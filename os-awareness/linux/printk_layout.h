// Where the kernel's log has its fields (kernel/printk): by their names in BTF, else by VMCOREINFO, which has
// them for crash tools.
#pragma once

#include <cstdint>
#include <string_view>

#include "os-awareness/linux/btf.h"
#include "os-awareness/linux/struct_layout.h"
#include "os-awareness/linux/vmcoreinfo.h"

namespace exo::os {

// A bitfield within one byte; `bits` 0: not known.
struct BitField {
    std::uint32_t offset = 0;  // of the byte
    std::uint8_t shift = 0;
    std::uint8_t bits = 0;

    [[nodiscard]] std::uint8_t in(ConstBytes bytes) const {
        const auto byte = Field{offset, 1}.in(bytes).value_or(0);
        return static_cast<std::uint8_t>((byte >> shift) & ((1U << bits) - 1));
    }
};

// What both formats say of a record.
struct RecordLayout {
    Field time, text_len, facility, caller;
    BitField level;
    std::uint32_t size = 0;  // of the structure, bytes
};

// struct printk_log, 3.11 to 5.9 (62e32ac3505a named it): records one after the other in log_buf.
struct PrintkLogLayout : RecordLayout {
    Field len, dict_len;
};

// struct printk_ringbuffer, from 5.10 on (896fbe20b4e2).
struct PrintkRingLayout : RecordLayout {  // of struct printk_info
    Field sequence;
    Field count_bits, descs, infos, head_id, tail_id, size_bits, data;  // from the ring buffer's start
    Field state, begin, next;                                           // of struct prb_desc
    std::uint32_t desc_size = 0;
    std::uint32_t ring_size = 0;  // up to the end of the last field
};

// Either may be null. unsupported names what is not there.
Result<PrintkRingLayout> printk_ring_layout(const Btf* btf, const VmCoreInfo* vmcoreinfo);

// Never fails: where nothing tells, the structure is what it was in every kernel that had it.
PrintkLogLayout printk_log_layout(const Btf* btf, const VmCoreInfo* vmcoreinfo);

}  // namespace exo::os
