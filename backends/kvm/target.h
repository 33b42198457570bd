// Any guest of KVM as a Target: kvm:PID.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backends/api/discovery.h"
#include "backends/api/target.h"
#include "backends/kvm/vm.h"

namespace exo::kvm {

// `name`: what follows "kvm:". `target`: the words by which the user names the guest to exogdb, which
// recover_target() finds again. The guest stands still for the moment that it takes to find its memory. With
// Memory::may_come a guest is opened that shows none of it yet, as one whose firmware runs out of ROM.
enum class Memory : std::uint8_t { needed, may_come };
Result<std::unique_ptr<Target>> open(const std::string& name, const std::string& target, Memory memory);

// discovery.cpp
// Whether open() may look at the guest's process and trace it; tried, without a stop of the guest.
Result<void> may_trace(const std::string& name);
Result<std::vector<GuestSummary>> list();
Result<RecoverReport> recover(const std::string& name);
// The same of guests that were opened by that name, whatever their processes are: nobody needs to be asked.
Result<RecoverReport> recover_target(const std::string& target);
// Whether recover() would find something of this guest, or of any; whoever owns it.
bool is_in_journal(const std::string& name);
bool any_left_behind();
std::vector<Check> diagnose(const std::string& name);

}  // namespace exo::kvm
