// What xc_domain_hvm_getcontext() gives and setcontext() takes: records of a vCPU or a device, each behind a
// struct hvm_save_descriptor (xen/include/public/hvm/save.h).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "backends/api/memory.h"

namespace exo::xen {

using HvmContext = std::vector<std::byte>;

// The record's content; nothing if there is none. What comes after a record that does not fit is not looked
// at.
std::optional<ConstBytes> find_record(ConstBytes context, std::uint16_t type, std::uint16_t instance);
// A context of the header of `from` and one record, which Xen loads and leaves the rest as it was
// (xen/common/hvm/save.c, hvm_load()). Nothing if `from` has no header.
std::optional<HvmContext> with_one_record(ConstBytes from, std::uint16_t type, std::uint16_t instance,
                                          ConstBytes content);

}  // namespace exo::xen
