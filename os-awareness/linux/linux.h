// The Linux row of the probe table.
#pragma once

#include <memory>

#include "os-awareness/os.h"

namespace exo::os {

// Null with `failure` filled when no Linux kernel is recognised.
std::unique_ptr<OsAwareness> linux_probe(const ProbeContext& context, ProbeFailure& failure);

}  // namespace exo::os
