// What the registry calls: opening, listing, checking and recovering QEMU guests.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backends/api/discovery.h"
#include "backends/api/target.h"

namespace exo::qemu {

struct Reach {
    bool libvirt = false;
    std::string name;     // of the domain, or the path of the QMP socket
    std::string connect;  // libvirt URI, empty for the default
};

Result<std::unique_ptr<Target>> open(const Reach& reach);
// The guest's journals that no living exogdb owns.
Result<RecoverReport> recover(const Reach& reach);
std::vector<Check> diagnose(const Reach& reach);
Result<std::vector<GuestSummary>> list_libvirt(const std::string& connect);

}  // namespace exo::qemu
