// What `exogdb list`, `doctor` and `recover` get from a backend: data, to be printed by others.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace exo {

struct GuestSummary {
    std::string target;  // "libvirt:debian": what to give to `serve`
    std::string name;
    std::string state;        // "running", "paused", "shut off": the hypervisor's own word
    std::optional<int> pid;   // of the VMM, where there is one and it runs
    std::string accelerator;  // "kvm", "tcg", "xen"
    std::uint32_t vcpus = 0;
};

// One thing that attaching needs.
struct Check {
    std::string name;  // "ptrace permission"
    bool ok = false;
    std::string detail;  // what was found
    std::string remedy;  // what to do; empty if ok
};

struct RecoverReport {
    std::vector<std::string> actions;  // what was done; empty: there was nothing to undo
};

}  // namespace exo
