// Which part of a monitor's memory is which part of its guest's, found from outside.
//
// KVM does not tell its memory slots. What it does tell is what an address of the guest is mapped to
// (KVM_TRANSLATE), by walking page tables that lie in the memory that is looked for: a guess about the slots
// is right where walks through it come out as KVM's own. Layouts that monitors are known for only say what is
// tried first.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backends/api/memory.h"
#include "backends/host/process.h"

namespace exo::kvm {

struct Slot {
    PhysicalAddress start{};
    std::uint64_t size = 0;  // bytes
    std::uint64_t host = 0;  // address in the monitor
    MemoryRegion::Kind kind = MemoryRegion::Kind::ram;
    std::string name;  // "ram"; "ram, not verified" where nothing tells that it is right

    [[nodiscard]] std::uint64_t end() const { return raw(start) + size; }
};

struct Slots {
    std::vector<Slot> slots;    // sorted by start, disjoint
    std::size_t confirmed = 0;  // page tables of the guest, each seen by a walk that came out as KVM's own
    std::vector<std::string> notes;  // what is not verified, and what could not be placed; one line each
};

// What one vCPU says of guest addresses. None of them may run meanwhile. One that runs a nested guest is no
// witness: its CR3 is an address of that guest.
struct Witness {
    std::uint64_t cr0 = 0;
    std::uint64_t cr3 = 0;
    std::uint64_t cr4 = 0;
    std::uint64_t efer = 0;
    // Virtual ones that are likely to be mapped: rip, rsp, bases of gdt, idt, tr, gs, fs. With paging off the
    // first is where code is executed, as a linear address.
    std::vector<std::uint64_t> addresses;
    // KVM_TRANSLATE of that vCPU: nothing if not mapped.
    std::function<Result<std::optional<PhysicalAddress>>(VirtualAddress)> translate;
};

// Copies out of the monitor's memory: bytes from the start of `out`, 0 if there is nothing.
using ReadVmm = std::function<std::size_t(std::uint64_t host, MutableBytes out)>;

// `mappings` are those of /proc/PID/maps. not_found: no memory of the monitor behaves as the guest's; the
// message says how far it got. An error of a witness if none of them answers.
Result<Slots> find_slots(std::span<const Mapping> mappings, const ReadVmm& read,
                         std::span<const Witness> witnesses);

}  // namespace exo::kvm
