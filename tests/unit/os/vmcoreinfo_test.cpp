#include "os-awareness/linux/vmcoreinfo.h"

#include <doctest/doctest.h>

#include <string>

#include "tests/support/fake_memory.h"

using namespace exo;
using namespace exo::os;
using exo::test::FakeMemory;

namespace {

// As a kernel 6.1 writes it.
const std::string note_text =
    "OSRELEASE=6.1.0-50-cloud-amd64\nBUILD-ID=8b1e40\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=ffffffff9481b5c0\n"
    "OFFSET(uts_namespace.name)=0\nSYMBOL(swapper_pg_dir)=ffffffff94810000\nSYMBOL(_stext)=ffffffff92e00000\n"
    "SIZE(page)=64\nOFFSET(list_head.next)=0\nLENGTH(zone.free_area)=11\nNUMBER(phys_base)=-1966080000\n"
    "NUMBER(pgtable_l5_enabled)=1\nKERNELOFFSET=11e00000\nNUMBER(KERNEL_IMAGE_SIZE)=1073741824\n"
    "NUMBER(sme_mask)=0\n";

}  // namespace

TEST_CASE("VMCOREINFO: values in the base that the kernel prints them in") {
    const auto info = VmCoreInfo::parse(note_text + std::string(20, '\0') + "behind");
    REQUIRE(info);
    CHECK(info->release() == "6.1.0-50-cloud-amd64");
    CHECK(info->symbol("swapper_pg_dir") == VirtualAddress{0xffffffff94810000});
    CHECK(info->kernel_offset() == 0x11e00000);
    CHECK(info->number("phys_base") == 0 - std::uint64_t{1966080000});
    CHECK(info->number("pgtable_l5_enabled") == 1);
    CHECK(info->size("page") == 64);
    CHECK(info->offset("list_head.next") == 0);
    CHECK(info->find("BUILD-ID") == "8b1e40");
    CHECK(!info->find("behind"));
    CHECK(!info->symbol("prb"));
    CHECK(!info->number("nothing"));
}

TEST_CASE("VMCOREINFO: an unfinished last line is dropped, what is no VMCOREINFO refused") {
    const auto cut = VmCoreInfo::parse("OSRELEASE=5.10\nSYMBOL(_stext)=ffffffff8100");
    REQUIRE(cut);
    CHECK(!cut->symbol("_stext"));
    CHECK(VmCoreInfo::parse("OSRELEASE=5.10\nKERNELOFFSET=zz\n")->kernel_offset() == std::nullopt);
    CHECK(!VmCoreInfo::parse(""));
    CHECK(!VmCoreInfo::parse("OSRELEASE=5.10"));
    CHECK(!VmCoreInfo::parse("PAGESIZE=4096\nOSRELEASE=5.10\n"));
    CHECK(!VmCoreInfo::parse("OSRELEASE=5.10\nno value\n"));
    CHECK(!VmCoreInfo::parse("OSRELEASE=5.10\n=4\n"));
    CHECK(!VmCoreInfo::parse("OSRELEASE=5.10\nA=\x80\n"));
}

TEST_CASE("VMCOREINFO: a scan goes on until one is accepted") {
    FakeMemory memory;
    memory.add_ram(PhysicalAddress{0}, 0x10'0000);
    memory.put_text(PhysicalAddress{0x3000}, "OSRELEASE=%s\n\x01");
    memory.put_text(PhysicalAddress{0x5000}, "OSRELEASE=5.10.0-former\nSYMBOL(_stext)=ffffffff81000000\n");
    memory.put_text(PhysicalAddress{0x7010},
                    note_text);  // a copy of it in a note, not at the start of a page
    memory.put_text(PhysicalAddress{0x9000}, note_text);
    const auto ours = [](const VmCoreInfo& info) {
        return info.symbol("_stext") == VirtualAddress{0xffffffff92e00000};
    };
    const auto found = scan_for_vmcoreinfo(memory, ours);
    REQUIRE(found);
    CHECK(found->release() == "6.1.0-50-cloud-amd64");
    const auto none = scan_for_vmcoreinfo(memory, [](const VmCoreInfo&) { return false; });
    REQUIRE(!none);
    CHECK(none.error().code == Errc::not_found);
}

TEST_CASE("VMCOREINFO: its symbols one by one") {
    const auto info = VmCoreInfo::parse(note_text + "SYMBOL(unfinished=1\nSYMBOL(no_number)=x\n");
    REQUIRE(info);
    std::string seen;
    info->for_each_symbol([&](std::string_view name, VirtualAddress address) {
        seen.append(name).append("=").append(hex(address)).append(" ");
    });
    CHECK(seen ==
          "_stext=0xffffffff92e00000 init_uts_ns=0xffffffff9481b5c0 swapper_pg_dir=0xffffffff94810000 ");
}
