// Guests that QEMU's monitor tells of, by libvirt or a QMP socket: two backends can serve them, which know
// nothing of each other. Here it is chosen (choice.h), and what either of them left behind is undone.
#pragma once

#include <memory>
#include <vector>

#include "backends/registry.h"

namespace exo::qemu_or_kvm {

Result<std::unique_ptr<Target>> open(const TargetUri& uri, const OpenOptions& options);
// All journals of this guest. Those of KVM are looked at first, and those that were written under this name
// need neither libvirt nor QEMU: a vCPU that waits for a dead exogdb makes QEMU's monitor wait too.
Result<RecoverReport> recover(const TargetUri& uri, const OpenOptions& options);
std::vector<Check> diagnose(const TargetUri& uri, const OpenOptions& options);

// kvm:PID. Nobody is asked, unless an exogdb that used QEMU's stub was killed.
Result<std::unique_ptr<Target>> open_process(const TargetUri& uri, const OpenOptions& options);
Result<RecoverReport> recover_process(const TargetUri& uri, const OpenOptions& options);

}  // namespace exo::qemu_or_kvm
