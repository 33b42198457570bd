// What firmware, or a monitor in its place, leaves in guest memory for the kernel to find: it lies where it
// is looked for, and says itself where more of it lies.
#pragma once

#include <cstdint>
#include <set>

#include "backends/kvm/guess.h"

namespace exo::kvm {

// Guest addresses at which there is, through this guess, what must be there: ACPI's root pointer and the
// table that it points at, the MP floating pointer and its table; each with a right checksum.
std::set<std::uint64_t> landmarks(const Guess& guess, const ReadVmm& read);

}  // namespace exo::kvm
