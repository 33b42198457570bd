#include "backends/kvm/vm.h"

#include <doctest/doctest.h>

using namespace exo;
using namespace exo::kvm;

namespace {

// As Linux 6.1 and 6.18 print them; the numbers of the descriptors are QEMU's usual ones.
constexpr auto one_vm =
    "7f0000000000-7f0040000000 rw-p 00000000 00:00 0 \n"
    "7f1000003000-7f1000006000 rw-s 00000000 00:0e 1038                       anon_inode:kvm-vcpu:0\n"
    "7f1000000000-7f1000003000 rw-s 00000000 00:0e 1038                       anon_inode:kvm-vcpu:1\n";

}  // namespace

TEST_CASE("kvm: names of targets") {
    CHECK(VmName::parse("4711")->pid == 4711);
    CHECK_FALSE(VmName::parse("4711")->fd);
    CHECK(VmName::parse("4711/12")->fd == 12);
    for (const auto* wrong : {"", "x", "-1", "0", "12/", "12/x", "1 2", "99999999999"})
        CHECK(VmName::parse(wrong).error().code == Errc::bad_request);
}

TEST_CASE("kvm: a VM of two vCPUs") {
    const auto vms = group_vms(1,
                               {{13, "anon_inode:kvm-vcpu:1"},
                                {3, "socket:[1]"},
                                {12, "anon_inode:kvm-vcpu:0"},
                                {11, "anon_inode:kvm-vm"},
                                {10, "/dev/kvm"}},
                               one_vm);
    REQUIRE(vms.size() == 1);
    CHECK(vms[0].fd == 11);
    REQUIRE(vms[0].vcpus.size() == 2);
    CHECK(vms[0].vcpus[0].id == 0);
    CHECK(vms[0].vcpus[0].fd == 12);
    CHECK(vms[0].vcpus[0].run == 0x7f1000003000);
    CHECK(vms[0].vcpus[0].run_size == 0x3000);
    CHECK(vms[0].vcpus[1].run == 0x7f1000000000);
}

TEST_CASE("kvm: two VMs in one process, whose vCPUs have the same numbers") {
    const auto vms = group_vms(1,
                               {{4, "anon_inode:kvm-vm"},
                                {5, "anon_inode:kvm-vcpu:0"},
                                {6, "anon_inode:kvm-vm"},
                                {7, "anon_inode:kvm-vcpu:0"}},
                               "7f2000000000-7f2000003000 rw-s 00000000 00:0e 1 anon_inode:kvm-vcpu:0\n"
                               "7f2000003000-7f2000006000 rw-s 00000000 00:0e 1 anon_inode:kvm-vcpu:0\n");
    REQUIRE(vms.size() == 2);
    REQUIRE(vms[0].vcpus.size() == 1);
    REQUIRE(vms[1].vcpus.size() == 1);
    CHECK(vms[0].vcpus[0].fd == 5);
    CHECK(vms[0].vcpus[0].run == 0x7f2000003000);  // mapped first, so the higher one
    CHECK(vms[1].vcpus[0].fd == 7);
    CHECK(vms[1].vcpus[0].run == 0x7f2000000000);
}

TEST_CASE("kvm: what is not whole is left out") {
    CHECK(group_vms(1, {{5, "anon_inode:kvm-vcpu:0"}}, one_vm).empty());  // no VM
    const auto unmapped = group_vms(1, {{4, "anon_inode:kvm-vm"}, {5, "anon_inode:kvm-vcpu:7"}}, one_vm);
    REQUIRE(unmapped.size() == 1);
    CHECK(unmapped[0].vcpus.empty());
    const auto odd = group_vms(
        1, {{4, "anon_inode:kvm-vm"}, {5, "anon_inode:kvm-vcpu:"}, {6, "anon_inode:kvm-vcpu:0x"}}, one_vm);
    CHECK(odd.at(0).vcpus.empty());
}

TEST_CASE("kvm: which VM of a process is meant") {
    const Vm bare{.pid = 1, .fd = 4, .vcpus = {}};
    const Vm whole{.pid = 1, .fd = 6, .vcpus = {{.id = 0, .fd = 7}}};
    const Vm other{.pid = 1, .fd = 9, .vcpus = {{.id = 0, .fd = 10}}};
    CHECK(choose_vm({bare, whole}, {.pid = 1})->fd == 6);
    CHECK(choose_vm({whole, other}, {.pid = 1, .fd = 9})->fd == 9);
    CHECK(choose_vm({}, {.pid = 1}).error().code == Errc::not_found);
    CHECK(choose_vm({whole}, {.pid = 1, .fd = 9}).error().code == Errc::not_found);
    CHECK(choose_vm({bare, bare}, {.pid = 1}).error().code == Errc::bad_request);
    CHECK(choose_vm({bare, whole}, {.pid = 1, .fd = 4}).error().message ==
          "the virtual machine of process 1 has no vCPU yet");
    const auto several = choose_vm({bare, whole, other}, {.pid = 1});
    CHECK(several.error().code == Errc::bad_request);
    CHECK(several.error().message == "process 1 holds several virtual machines: give one of kvm:1/6 kvm:1/9");
}
