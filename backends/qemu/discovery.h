// What the registry calls: opening, listing, checking and recovering QEMU guests.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backends/api/discovery.h"
#include "backends/api/target.h"
#include "backends/qemu/monitor.h"
#include "backends/qemu/stub_control.h"

namespace exo::qemu {

struct Reach {
    bool libvirt = false;
    std::string name;     // of the domain, or the path of the QMP socket
    std::string connect;  // libvirt URI, empty for the default
};

// A guest that runs in a QEMU here, as its monitor tells of it; not opened yet.
struct Guest {
    Reach reach;
    std::unique_ptr<Monitor> monitor;
    Process process;
    bool kvm = false;
    RunState state;
};
Result<Guest> find(const Reach& reach);
Result<std::unique_ptr<Target>> open(Guest guest);
// Why nobody else may control the guest: through QEMU's stub somebody does, or did and was killed. Nothing if
// it is free.
std::optional<Error> stub_in_use(const Guest& guest);
// What a killed exogdb has left of this guest; busy if another exogdb that lives has it.
Result<void> recover_stale(const Guest& guest);

// The guest's journals that no living exogdb owns.
Result<RecoverReport> recover(const Reach& reach);
// The same of what runs in this process, however it was reached.
Result<RecoverReport> recover_process(pid_t pid);

// The way to the guest; the guest too if there was nothing in the way.
struct Diagnosis {
    std::vector<Check> checks;
    std::optional<Guest> guest;
};
Diagnosis diagnose(const Reach& reach);
// What QEMU's stub needs beyond that.
std::vector<Check> diagnose_stub(const Guest& guest);
Result<std::vector<GuestSummary>> list_libvirt(const std::string& connect);

}  // namespace exo::qemu
