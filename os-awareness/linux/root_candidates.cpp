#include "os-awareness/linux/root_candidates.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "os-awareness/linux/constants.h"
#include "os-awareness/scan.h"

namespace exo::os {
namespace {

std::vector<x86::PagingMode> long_modes(const RegisterSet& vcpu, const std::string& name,
                                        ProbeFailure& failure) {
    const auto mode = x86::paging_mode(vcpu);
    if (!mode) return {x86::PagingMode::levels4, x86::PagingMode::levels5};
    switch (*mode) {
        case x86::PagingMode::levels4:
        case x86::PagingMode::levels5: return {*mode};
        case x86::PagingMode::none: failure.steps.push_back("linux: " + name + " has paging off"); break;
        default: failure.steps.push_back("linux: " + name + " is not in 64-bit mode"); break;
    }
    return {};
}

bool runs_firmware(const RegisterSet& vcpu) {
    const auto mode = x86::paging_mode(vcpu);
    if (!mode) return false;
    if (*mode != x86::PagingMode::levels4 && *mode != x86::PagingMode::levels5) return true;
    const auto selector = vcpu.get(x86::cs);
    const auto pc = vcpu.get(x86::rip);
    return selector && pc && (*selector & 3) == 0 && *pc >> 63 == 0;
}

// An entry of a table that points at another table, as far as one can tell without knowing the CPU.
bool points_at_table(std::uint64_t entry) {
    constexpr std::uint64_t present = 1;
    constexpr std::uint64_t large_or_ignored_high = 1ULL << 7 | 0xfff0'0000'0000'0000;
    return (entry & present) != 0 && (entry & large_or_ignored_high) == 0;
}

}  // namespace

std::vector<RootCandidate> roots_of_vcpus(std::span<const RegisterSet> vcpus, ProbeFailure& failure) {
    std::vector<RootCandidate> candidates;
    const auto add = [&](std::uint64_t root, x86::PagingMode mode, std::string how) {
        const auto same = [&](const RootCandidate& c) { return raw(c.root) == root && c.mode == mode; };
        if (std::ranges::none_of(candidates, same))
            candidates.push_back({PhysicalAddress{root}, mode, std::move(how)});
    };
    for (std::size_t i = 0; i < vcpus.size(); ++i) {
        const std::string name = "vCPU " + std::to_string(i);
        const auto control3 = vcpus[i].get(x86::cr3);
        if (!control3) {
            failure.steps.push_back("linux: CR3 of " + name + " is not available");
            continue;
        }
        const std::uint64_t root = *control3 & cr3_address;
        for (const auto mode : long_modes(vcpus[i], name, failure)) {
            add(root, mode, "CR3 of " + name);
            if ((root & kpti_user_bit) != 0) {
                add(root & ~kpti_user_bit, mode, "CR3 of " + name + ", kernel half of its KPTI pair");
            }
        }
    }
    return candidates;
}

bool may_run_a_kernel(std::span<const RegisterSet> vcpus) {
    return vcpus.empty() || !std::ranges::all_of(vcpus, runs_firmware);
}

void scan_for_roots(PhysicalMemory& memory, const std::function<bool(const RootCandidate&)>& accept) {
    constexpr std::size_t page_bytes = 4096;
    constexpr std::size_t last_entry = page_bytes - sizeof(std::uint64_t);
    constexpr std::size_t tables_limit = 4096;
    std::set<std::uint64_t> seen;  // tables of the topmost 512 GiB, shared by every process
    const auto look = [&](PhysicalAddress start, ConstBytes bytes) {
        for (std::size_t page = 0; page + page_bytes <= bytes.size(); page += page_bytes) {
            std::uint64_t entry = 0;
            std::memcpy(&entry, bytes.data() + page + last_entry, sizeof entry);
            if (!points_at_table(entry) || !seen.insert(entry & cr3_address).second) continue;
            if (accept({start + page, x86::PagingMode::levels4, "search of RAM for page tables"}))
                return false;
            if (seen.size() == tables_limit) return false;
        }
        return true;
    };
    for_each_chunk(memory, 0, look);
}

}  // namespace exo::os
