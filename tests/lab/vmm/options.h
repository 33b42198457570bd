// What machines a command line asks for.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace vmm {

enum class MemoryKind { anonymous, memfd, hugetlb };
enum class Mode { real, long_mode };

struct MachineOptions {
    unsigned vcpus = 1;
    uint64_t memory_mib = 64;
    std::optional<uint64_t> low_mib;  // how much of it lies below the hole under 4 GiB; else as much as fits
    MemoryKind memory_kind = MemoryKind::anonymous;
    bool one_mapping = true;  // of the whole RAM, in the host; else one for each slot

    std::string serial = "-";  // where COM1 goes: "-", a file, or unix:PATH
    std::string channel;       // COM2, the same; empty: there is none

    std::chrono::milliseconds locked{};  // after a KVM_RUN that was cut short, under a lock as QEMU has one

    // either bare code…
    std::string bare;
    Mode mode = Mode::long_mode;
    std::optional<uint64_t> load;  // guest-physical; 0x100000, in real mode 0x1000

    // …or a Linux kernel
    std::string kernel, initrd, command_line;
};

struct Options {
    bool paused = false;
    std::vector<MachineOptions> machines;
};

// Prints the usage and ends the process when the words cannot be understood, or ask for it.
Options parse_options(int count, char** words);

}  // namespace vmm
