#include "os-awareness/linux/kernel_image.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/guest_builder.h"

using namespace exo;
using namespace exo::os;
using namespace exo::test;

namespace {

Result<KernelImage> find(GuestBuilder& guest, const std::vector<RegisterSet>& vcpus, ProbeFailure& failure) {
    return find_kernel_image({guest.memory(), vcpus, {}}, failure);
}

Result<KernelImage> find(GuestBuilder& guest, const std::vector<RegisterSet>& vcpus) {
    ProbeFailure failure;
    return find(guest, vcpus, failure);
}

std::string finding(const KernelImage& image, std::string_view what) {
    const auto it = std::ranges::find(image.findings, what, &Finding::what);
    return it == image.findings.end() ? "" : it->value + " (" + it->how + ")";
}

bool mentions(const ProbeFailure& failure, std::string_view text) {
    return std::ranges::any_of(failure.steps, [&](const std::string& s) { return s.find(text) != s.npos; });
}

void check_found(const Result<KernelImage>& found, const GuestBuilder& guest) {
    REQUIRE_MESSAGE(found, (found ? "" : found.error().message));
    CHECK(hex(found->start) == hex(guest.text()));
    CHECK(hex(found->end) == hex(guest.text() + guest.options().image_bytes));
    CHECK(hex(found->physical_start) == hex(guest.physical()));
    CHECK(hex(found->slide) == hex(guest.options().slide));
    CHECK(found->mode == guest.options().mode);
    CHECK(hex(found->root) == hex(guest.kernel_root()));
    CHECK(found->banner == guest.banner_text());
    CHECK(found->banner_address == guest.banner());
    REQUIRE(found->space);
    CHECK(hex(found->space->translate(guest.banner())->physical) == hex(guest.physical_of(guest.banner())));
}

}  // namespace

TEST_CASE("kernel image: 4 and 5 levels, large and small pages, with and without KASLR") {
    for (const auto mode : {x86::PagingMode::levels4, x86::PagingMode::levels5}) {
        for (const std::uint64_t leaf : {4096ULL, 2ULL << 20}) {
            for (const std::uint64_t slide : {0ULL, 0x20'0000ULL, 0x3e00'0000ULL}) {
                CAPTURE(leaf);
                CAPTURE(slide);
                GuestBuilder guest{{.mode = mode, .slide = slide, .leaf_bytes = leaf}};
                guest.finish();
                const auto found = find(guest, {guest.vcpu(guest.new_process())});
                check_found(found, guest);
                CHECK(found->symbols.find("init_top_pgt"));
                CHECK(finding(*found, "page_table_root") ==
                      hex(guest.kernel_root()) + " (symbol init_top_pgt)");
                CHECK(finding(*found, "paging_levels")
                          .starts_with(mode == x86::PagingMode::levels5 ? "5" : "4"));
            }
        }
    }
}

TEST_CASE("kernel image: the physical address is chosen apart from the virtual one, and may be above 4 GiB") {
    GuestBuilder guest{{.ram = PhysicalAddress{0x1'4000'0000}}};
    guest.finish();
    check_found(find(guest, {guest.vcpu(guest.new_process())}), guest);
}

TEST_CASE("kernel image: every vCPU in user mode under KPTI") {
    GuestBuilder guest;
    guest.finish();
    const auto user_half = guest.new_process() + 4096;
    ProbeFailure failure;
    const auto found = find(guest, {guest.vcpu(user_half, true), guest.vcpu(user_half, true)}, failure);
    check_found(found, guest);
    CHECK(finding(*found, "kernel_found_by").find("kernel half of its KPTI pair") != std::string::npos);
}

TEST_CASE("kernel image: PCID and no-flush bits in CR3") {
    GuestBuilder guest;
    guest.finish();
    const auto process = guest.new_process();
    check_found(find(guest, {guest.vcpu(PhysicalAddress{raw(process) | 0x003})}), guest);
    check_found(find(guest, {guest.vcpu(PhysicalAddress{(raw(process) + 4096) | 0x803 | 1ULL << 63}, true)}),
                guest);
}

TEST_CASE("kernel image: one vCPU in the kernel is enough") {
    GuestBuilder guest;
    guest.finish();
    ProbeFailure failure;
    auto nested = guest.vcpu(PhysicalAddress{0x7000});  // tables of a nested guest: nothing here
    check_found(find(guest, {guest.vcpu_in_firmware(), nested, guest.vcpu(guest.kernel_root())}, failure),
                guest);
    CHECK(mentions(failure, "vCPU 0 has paging off"));
    CHECK(mentions(failure, "page tables at 0x7000 (CR3 of vCPU 1): maps nothing at 0xffffffff80000000"));
}

TEST_CASE("kernel image: vCPUs whose mode is not known are tried in both") {
    for (const auto mode : {x86::PagingMode::levels4, x86::PagingMode::levels5}) {
        GuestBuilder guest{{.mode = mode}};
        guest.finish();
        auto vcpu = guest.vcpu(guest.new_process());
        vcpu.set_unavailable(x86::cr4);
        check_found(find(guest, {vcpu}), guest);
    }
}

TEST_CASE("kernel image: memory is searched when no vCPU leads to the kernel") {
    for (const auto mode : {x86::PagingMode::levels4, x86::PagingMode::levels5}) {
        GuestBuilder guest{{.mode = mode}};
        guest.finish();
        guest.new_process();
        ProbeFailure failure;
        const auto nested = guest.vcpu(PhysicalAddress{0x7000}, true);
        const auto found = find(guest, {nested}, failure);
        check_found(found, guest);
        CHECK(finding(*found, "kernel_found_by").starts_with("search of RAM"));
        check_found(find(guest, {}), guest);                            // no registers at all
        check_found(find(guest, {RegisterSet{x86::layout()}}), guest);  // none available
    }
}

TEST_CASE("kernel image: firmware is not searched for what a former kernel left in RAM") {
    GuestBuilder guest;
    guest.finish();
    guest.new_process();
    ProbeFailure failure;
    auto uefi = guest.vcpu(PhysicalAddress{0x7000});
    uefi.set(x86::rip, 0x3f00'1000);
    const auto found = find(guest, {guest.vcpu_in_firmware(), uefi}, failure);
    REQUIRE(!found);
    CHECK(found.error().code == Errc::not_found);
    CHECK(mentions(failure, "memory was not searched"));
}

TEST_CASE("kernel image: of two in RAM the one that a vCPU executes") {
    GuestBuilder first{{.slide = 0x1000'0000, .release = "1-former"}};
    first.finish();
    GuestBuilder second{{.slide = 0x2000'0000, .ram = PhysicalAddress{0x3'0000'0000}, .release = "2-now"}};
    second.finish();
    class Both : public FakeMemory {
    public:
        Both(FakeMemory& low, FakeMemory& high) : low_(low), high_(high) {
            for (auto* part : {&low, &high}) all_.push_back(part->regions().front());
        }
        Result<std::size_t> read_some(PhysicalAddress a, MutableBytes out) override {
            return a >= all_[1].start ? high_.read_some(a, out) : low_.read_some(a, out);
        }
        std::span<const MemoryRegion> regions() const override { return all_; }

    private:
        FakeMemory& low_;
        FakeMemory& high_;
        std::vector<MemoryRegion> all_;
    } memory{first.memory(), second.memory()};
    const std::vector<RegisterSet> vcpus{second.vcpu(PhysicalAddress{0x7000})};
    ProbeFailure failure;
    check_found(find_kernel_image({memory, vcpus, {}}, failure), second);
    const std::vector<RegisterSet> in_first{first.vcpu(first.kernel_root())};
    check_found(find_kernel_image({memory, in_first, {}}, failure), first);
}

TEST_CASE("kernel image: entries with a C-bit") {
    GuestBuilder guest{{.encryption_mask = 1ULL << 51}};
    guest.finish();
    const auto found = find(guest, {guest.vcpu(guest.new_process())});
    check_found(found, guest);
    CHECK(found->encryption_mask == 1ULL << 51);
}

TEST_CASE("kernel image: the slide is VMCOREINFO's where that is this kernel's") {
    const auto info = [](std::uint64_t stext, std::string_view offset) {
        return "OSRELEASE=6.12.1-test\nSYMBOL(_stext)=" + hex(stext).substr(2) +
               "\nKERNELOFFSET=" + std::string{offset} + "\n";
    };
    GuestOptions options;
    SUBCASE("this kernel's, linked at 32 MiB") {
        GuestBuilder guest{options};
        guest.vmcoreinfo(info(raw(guest.text()), "1b000000"));
        guest.finish();
        const auto found = find(guest, {guest.vcpu(guest.new_process())});
        REQUIRE(found);
        CHECK(hex(found->slide) == "0x1b000000");
        CHECK(finding(*found, "slide") == "0x1b000000 (VMCOREINFO KERNELOFFSET)");
        REQUIRE(found->vmcoreinfo);
        CHECK(found->vmcoreinfo->release() == "6.12.1-test");
    }
    SUBCASE("of a kernel before") {
        GuestBuilder guest{options};
        guest.vmcoreinfo(info(raw(guest.text()) + 0x400'0000, "20000000"));
        guest.finish();
        const auto found = find(guest, {guest.vcpu(guest.new_process())});
        check_found(found, guest);
        CHECK(!found->vmcoreinfo);
    }
    SUBCASE("with an offset that no kernel has") {
        GuestBuilder guest{options};
        guest.vmcoreinfo(info(raw(guest.text()), "1c000123"));
        guest.finish();
        check_found(find(guest, {guest.vcpu(guest.new_process())}), guest);
    }
}

TEST_CASE("kernel image: without data symbols the banner is searched, and the root is VMCOREINFO's") {
    GuestBuilder guest{{.data_symbols = false}};
    const std::string root = hex(raw(guest.text()) + raw(guest.kernel_root()) - raw(guest.physical()));
    guest.vmcoreinfo("OSRELEASE=6.12.1-test\nSYMBOL(_stext)=" + hex(guest.text()).substr(2) +
                     "\nSYMBOL(swapper_pg_dir)=" + root.substr(2) + "\n");
    guest.finish();
    const auto found = find(guest, {guest.vcpu(guest.new_process())});
    check_found(found, guest);
    CHECK(!found->symbols.find("linux_banner"));
    CHECK(finding(*found, "page_table_root").find("VMCOREINFO SYMBOL(swapper_pg_dir)") != std::string::npos);
}

TEST_CASE("kernel image: without any word of its own tables those that led to it are used, and it is said") {
    GuestBuilder guest{{.root_symbol = false}};
    guest.finish();
    const auto process = guest.new_process();
    const auto found = find(guest, {guest.vcpu(process)});
    REQUIRE(found);
    CHECK(hex(found->root) == hex(process));
    CHECK(finding(*found, "page_table_root").find("the kernel's own were not found") != std::string::npos);
}

TEST_CASE("kernel image: own tables that do not map the image are not trusted") {
    GuestBuilder guest;
    guest.finish();
    const auto process = guest.new_process();
    std::ranges::fill(guest.memory().bytes(guest.kernel_root(), 4096), std::byte{0});
    const auto found = find(guest, {guest.vcpu(process)});
    REQUIRE(found);
    CHECK(hex(found->root) == hex(process));
    CHECK(!found->own_root);
    CHECK(finding(*found, "page_table_root").find("the kernel's own were not found") != std::string::npos);
}

// Early boot runs on early_top_pgt, whose memory is freed and used for something else.
TEST_CASE("kernel image: goes over to the kernel's own tables when they come into use") {
    GuestBuilder guest;
    guest.finish();
    const auto early = guest.new_process();
    const auto own = guest.memory().bytes(guest.kernel_root(), 4096);
    const std::vector<std::byte> saved(own.begin(), own.end());
    std::ranges::fill(own, std::byte{0});
    auto found = find(guest, {guest.vcpu(early)});
    REQUIRE(found);
    CHECK(hex(found->root) == hex(early));
    CHECK(still_there(*found));
    CHECK(!found->own_root);
    const AddressSpace* space = found->space.get();
    std::ranges::copy(saved, own.begin());
    std::ranges::fill(guest.memory().bytes(early, 4096), std::byte{0xcc});
    CHECK(still_there(*found));
    CHECK(found->own_root);
    CHECK(found->space.get() == space);  // others refer to it
    check_found(found, guest);
}

TEST_CASE("kernel image: a mapping without a kernel in it says what was missing") {
    GuestBuilder guest;
    const auto finished = guest.finish();
    auto tables = guest.bytes(finished.kallsyms, finished.tables.bytes.size());
    std::ranges::fill(tables, std::byte{0});
    ProbeFailure failure;
    CHECK(!find(guest, {guest.vcpu(guest.new_process())}, failure));
    CHECK(mentions(failure, "no kallsyms token table in the image"));
    CHECK(mentions(failure, "no page tables in RAM lead to a kernel"));
}

TEST_CASE("kernel image: init sections that were unmapped after boot are holes, not the end") {
    GuestBuilder guest{{.leaf_bytes = 4096}};
    const auto freed = guest.in_image(1 << 20, 4096);  // before the tables
    guest.finish();
    for (std::uint64_t at = 0; at < 1 << 20; at += 4096) {
        guest.unmap(guest.kernel_root(), freed + at, 4096);
        // The page belongs to somebody else by now.
        std::ranges::fill(guest.bytes(freed + at, 4096), std::byte{0xee});
    }
    check_found(find(guest, {guest.vcpu(guest.new_process())}), guest);
}

TEST_CASE("kernel image: still there, until the guest is reset or another kernel runs") {
    GuestBuilder guest;
    guest.finish();
    auto found = find(guest, {guest.vcpu(guest.new_process())});
    REQUIRE(found);
    CHECK(still_there(*found));
    SUBCASE("memory was cleared") {
        std::ranges::fill(guest.bytes(guest.banner(), 256), std::byte{0});
        CHECK(!still_there(*found));
    }
    SUBCASE("another kernel at the same place") {
        guest.put_text(guest.banner(), "Linux version 6.12.2-test (x) #2\n");
        CHECK(!still_there(*found));
    }
    SUBCASE("its tables are gone") {
        std::ranges::fill(guest.memory().bytes(guest.kernel_root(), 4096), std::byte{0});
        CHECK(!still_there(*found));
    }
}
