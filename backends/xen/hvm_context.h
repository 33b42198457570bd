// What xc_domain_hvm_getcontext() gives and setcontext() takes: records of a vCPU or a device, each behind a
// struct hvm_save_descriptor (xen/include/public/hvm/save.h).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "backends/api/memory.h"

namespace exo::xen {

using HvmContext = std::vector<std::byte>;

// The record's content; nothing if there is none. What comes after a record that does not fit is not looked
// at.
std::optional<ConstBytes> find_record(ConstBytes context, std::uint16_t type, std::uint16_t instance);
// What is to be loaded in place of `from`: its header and the records of `types`, each as `change` leaves it.
// Loading takes every vCPU down whose record CPU is not there (xen/common/hvm/save.c, hvm_load()), and leaves
// of the FPU what that record has of it, unless CPU_XSAVE's comes behind: both are needed, of all vCPUs.
// Nothing if `from` has no header.
using ChangeRecord = std::function<void(std::uint16_t type, std::uint16_t instance, MutableBytes content)>;
std::optional<HvmContext> for_loading(ConstBytes from, std::span<const std::uint16_t> types,
                                      const ChangeRecord& change);

}  // namespace exo::xen
