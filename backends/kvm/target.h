// Any guest of KVM as a Target: kvm:PID.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backends/api/discovery.h"
#include "backends/api/target.h"
#include "backends/kvm/vm.h"

namespace exo::kvm {

// `name`: what follows "kvm:". The guest stands still for the moment that it takes to find its memory.
Result<std::unique_ptr<Target>> open(const std::string& name);

// discovery.cpp
Result<std::vector<GuestSummary>> list();
Result<RecoverReport> recover(const std::string& name);
std::vector<Check> diagnose(const std::string& name);

}  // namespace exo::kvm
