// A QEMU guest, through libvirt or QEMU's own QMP socket.
#pragma once

#include <memory>
#include <string>

#include "backends/api/target.h"
#include "backends/qemu/journal.h"
#include "backends/qemu/monitor.h"

namespace exo::qemu {

// `process`: find_process()'s. `identity`: the journal's target and connect. Does not stop the guest.
Result<std::unique_ptr<Target>> open_target(std::unique_ptr<Monitor> monitor, Process process,
                                            JournalEntry identity);

// QEMU's process, by the host threads of its vCPUs; checked against what the monitor knows of it. backend
// when the process cannot be seen from here (another pid namespace, another host).
Result<Process> find_process(Monitor& monitor);

// Whether QEMU runs the guest with KVM.
bool uses_kvm(Monitor& monitor);

}  // namespace exo::qemu
