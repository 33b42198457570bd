#include "os-awareness/linux/root_candidates.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "tests/support/guest_builder.h"

using namespace exo;
using namespace exo::os;
using namespace exo::test;

namespace {

std::vector<std::string> roots(const std::vector<RegisterSet>& vcpus, ProbeFailure& failure) {
    std::vector<std::string> found;
    for (const auto& candidate : roots_of_vcpus(vcpus, failure)) {
        found.push_back(hex(candidate.root) + (candidate.mode == x86::PagingMode::levels5 ? " 5 " : " 4 ") +
                        candidate.how);
    }
    return found;
}

RegisterSet in_long_mode(std::uint64_t cr3) {
    RegisterSet vcpu{x86::layout()};
    vcpu.set(x86::cr0, x86::cr0_pg | x86::cr0_pe);
    vcpu.set(x86::cr3, cr3);
    vcpu.set(x86::cr4, x86::cr4_pae);
    vcpu.set(x86::efer, x86::efer_lma);
    vcpu.set(x86::cs, 0x10);
    vcpu.set(x86::rip, 0xffff'ffff'8100'0000);
    return vcpu;
}

}  // namespace

TEST_CASE("root candidates: CR3 as it is first, then the kernel's half; no root twice") {
    ProbeFailure failure;
    const std::vector<RegisterSet> vcpus{in_long_mode(0x8000'0000'0000'3803), in_long_mode(0x2001),
                                         in_long_mode(0x2000'0000'0000'3000)};
    CHECK(roots(vcpus, failure) ==
          std::vector<std::string>{"0x3000 4 CR3 of vCPU 0",
                                   "0x2000 4 CR3 of vCPU 0, kernel half of its KPTI pair"});
    CHECK(failure.steps.empty());
}

TEST_CASE("root candidates: what a vCPU does not offer is told") {
    ProbeFailure failure;
    auto without_cr3 = in_long_mode(0x1000);
    without_cr3.set_unavailable(x86::cr3);
    auto pae = in_long_mode(0x1000);
    pae.set(x86::efer, 0);
    auto off = in_long_mode(0x1000);
    off.set(x86::cr0, x86::cr0_pe);
    auto unknown = in_long_mode(0x4000);
    unknown.set_unavailable(x86::efer);
    CHECK(roots({without_cr3, pae, off, unknown}, failure) ==
          std::vector<std::string>{"0x4000 4 CR3 of vCPU 3", "0x4000 5 CR3 of vCPU 3"});
    CHECK(failure.steps == std::vector<std::string>{"linux: CR3 of vCPU 0 is not available",
                                                    "linux: vCPU 1 is not in 64-bit mode",
                                                    "linux: vCPU 2 has paging off"});
}

TEST_CASE("root candidates: firmware and boot loaders are told from what may be a kernel") {
    const auto kernel = in_long_mode(0x1000);
    auto real_mode = kernel;
    real_mode.set(x86::cr0, 0);
    auto uefi = kernel;
    uefi.set(x86::rip, 0x7f00'0000);
    auto user = uefi;
    user.set(x86::cs, 0x33);
    auto unknown = kernel;
    unknown.set_unavailable(x86::cr0);
    CHECK(!may_run_a_kernel(std::vector{real_mode, uefi}));
    CHECK(may_run_a_kernel(std::vector{real_mode, kernel}));
    CHECK(may_run_a_kernel(std::vector{real_mode, user}));
    CHECK(may_run_a_kernel(std::vector{real_mode, unknown}));
    CHECK(may_run_a_kernel({}));
}

TEST_CASE("root candidates: a scan offers each table of the window once, whatever processes share it") {
    GuestBuilder guest;
    for (int i = 0; i < 5; ++i) guest.new_process();
    int kernels = 0;
    int offered = 0;
    scan_for_roots(guest.memory(), [&](const RootCandidate& candidate) {
        ++offered;
        PageTables tables{guest.memory(), candidate.root, candidate.mode};
        if (tables.translate(guest.text())) ++kernels;
        return false;
    });
    CHECK(kernels == 1);
    CHECK(offered <= 6);  // and the users' halves, each with tables of its own
    int until = 0;
    scan_for_roots(guest.memory(), [&](const RootCandidate&) { return ++until == 2; });
    CHECK(until == 2);
}
