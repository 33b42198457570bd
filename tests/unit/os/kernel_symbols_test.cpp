#include "os-awareness/linux/kernel_symbols.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>

#include "os-awareness/linux/linux.h"
#include "os-awareness/linux/orc.h"
#include "tests/support/task_builder.h"

using namespace exo;
using namespace exo::test;

namespace {

// `count` entries "call, found from the stack pointer" of layout v3.
void add_orc(GuestBuilder& guest, std::uint32_t count) {
    const auto ips = guest.in_image(count * 4ULL, 8, "__start_orc_unwind_ip", 'R');
    guest.symbol(raw(ips) + count * 4ULL, 'R', "__stop_orc_unwind_ip");
    const auto entries =
        guest.in_image(count * std::uint64_t{os::OrcTable::entry_bytes}, 8, "__start_orc_unwind", 'R');
    guest.symbol(raw(entries) + count * os::OrcTable::entry_bytes, 'R', "__stop_orc_unwind");
    for (std::uint32_t i = 0; i < count; ++i) {
        guest.put(ips + i * 4ULL,
                  static_cast<std::int32_t>(raw(guest.text()) + i * 16 - raw(ips) - i * 4ULL));
        guest.put(entries + i * os::OrcTable::entry_bytes + 4, std::uint16_t{0x0205});
    }
}

struct SymbolGuest {
    GuestBuilder guest;
    TaskBuilder tasks;
    std::unique_ptr<os::OsAwareness> os;

    explicit SymbolGuest(GuestOptions options = {}, bool btf = true) : guest(options), tasks(guest, 1, btf) {}

    void probe() {
        guest.finish();
        os::ProbeFailure failure;
        os = os::linux_probe({guest.memory(), vcpus(), {}}, failure);
        REQUIRE(os != nullptr);
    }
    std::vector<RegisterSet> vcpus() { return {tasks.vcpu(0, tasks.idle(0))}; }
    std::string finding(std::string_view what) {
        const auto it = std::ranges::find(os->findings(), what, &os::Finding::what);
        return it == os->findings().end() ? "" : it->value + " | " + it->how;
    }
};

}  // namespace

TEST_CASE("symbol findings: a kernel that has all of it") {
    SymbolGuest g;
    add_orc(g.guest, 8);
    g.probe();
    CHECK(g.finding("symbols") == "functions and data | kallsyms");
    CHECK(g.finding("types") == "yes | BTF");
    CHECK(g.finding("frames") == "8 rows of ORC, layout v3 | what is valid");
    CHECK(g.finding("boot").empty());
}

TEST_CASE("symbol findings: no BTF, no ORC, and why") {
    SymbolGuest g{{}, false};
    g.probe();
    CHECK(g.finding("types") == "none | no symbol __start_BTF: a kernel without CONFIG_DEBUG_INFO_BTF");
    CHECK(g.finding("frames") ==
          "none | no symbols of ORC tables: built without them, or without data symbols");
    CHECK(g.finding("symbols") == "functions and data | kallsyms");
}

TEST_CASE("symbol findings: BTF that breaks off, ORC in no known layout") {
    SymbolGuest g{{}, false};
    BtfWriter btf;
    btf.integer("int", 4, true);
    btf.raw("", 31U << 24U, 0);
    const auto blob = btf.blob();
    const auto begin = g.guest.in_image(blob.size(), 8, "__start_BTF", 'R');
    std::ranges::copy(blob, g.guest.bytes(begin, blob.size()).begin());
    add_orc(g.guest, 8);
    g.probe();
    CHECK(g.finding("types").starts_with("some | BTF, not all of it: "));
    const auto entries = *g.os->symbols().find("__start_orc_unwind");
    std::ranges::fill(g.guest.bytes(entries, 8 * os::OrcTable::entry_bytes), std::byte{0xff});
    os::ProbeFailure failure;
    g.os = os::linux_probe({g.guest.memory(), g.vcpus(), {}}, failure);
    REQUIRE(g.os != nullptr);
    CHECK(g.finding("frames").starts_with("none | ORC entries in no known layout"));
}

TEST_CASE("symbol findings: without data symbols, what VMCOREINFO names is added") {
    SymbolGuest g{{.data_symbols = false}};
    const auto text = raw(g.guest.text());
    const auto line = [](std::string_view name, std::uint64_t address) {
        return "SYMBOL(" + std::string{name} + ")=" + hex(address).substr(2) + "\n";
    };
    const auto name_space = g.guest.in_image(8, 8);
    const auto end = text + g.guest.options().image_bytes;
    g.guest.vmcoreinfo("OSRELEASE=6.12.1-test\n" + line("_stext", text) +
                       line("init_uts_ns", raw(name_space)) + line("outside", end + 8) +
                       line("below", text - 8) + "SYMBOL(broken)=zz\nSYMBOL(cut=1\n");
    g.probe();
    CHECK(g.os->symbols().find("init_uts_ns") == name_space);
    // BTF has no symbol here, and is found all the same.
    CHECK(g.finding("types") == "yes | BTF");
    CHECK(g.finding("btf").find("search of the image: found at 0xffffffff9d") != std::string::npos);
    CHECK(g.os->symbols().find("__schedule"));
    CHECK_FALSE(g.os->symbols().find("outside"));
    CHECK_FALSE(g.os->symbols().find("below"));
    CHECK_FALSE(g.os->symbols().find("broken"));
    CHECK_FALSE(g.os->symbols().find("cut"));
    CHECK(g.finding("symbols") ==
          "functions only | kallsyms of a kernel without CONFIG_KALLSYMS_ALL; 1 more of VMCOREINFO");
}

TEST_CASE(
    "symbol findings: without data symbols and without BTF, what looks like its header is not taken for it") {
    SymbolGuest g{{.data_symbols = false}, false};
    constexpr std::array<std::uint32_t, 6> header{0x0001eb9f, 24, 0, 0xfffffff0, 0xfffffff0, 16};
    g.guest.put(g.guest.in_image(sizeof header), header);
    BtfWriter other;
    other.integer("int", 4, true);
    const auto blob = other.blob();
    std::ranges::copy(blob, g.guest.bytes(g.guest.in_image(blob.size()), blob.size()).begin());
    g.guest.finish();
    os::ProbeFailure failure;
    g.os = os::linux_probe({g.guest.memory(), g.vcpus(), {}}, failure);
    REQUIRE(g.os != nullptr);
    CHECK(g.finding("types") == "none | no symbol __start_BTF, and nothing in the image that looks like BTF");
}

TEST_CASE("symbol findings: data symbols of kallsyms need no VMCOREINFO") {
    SymbolGuest g;
    g.guest.vmcoreinfo("OSRELEASE=6.12.1-test\nSYMBOL(_stext)=" + hex(g.guest.text()).substr(2) +
                       "\nSYMBOL(only_there)=" + hex(raw(g.guest.text()) + 64).substr(2) + "\n");
    g.probe();
    CHECK_FALSE(g.os->symbols().find("only_there"));
}

TEST_CASE("boot finding: early until the kernel is up") {
    SymbolGuest g;
    const auto state = g.guest.in_image(4, 4, "system_state", 'D');
    g.probe();
    CHECK(g.finding("boot") ==
          "early | system_state SYSTEM_BOOTING: tasks and per-CPU data are not all set up yet");
    g.guest.put(state, std::uint32_t{1});
    REQUIRE(g.os->refresh(g.vcpus()));
    CHECK(g.finding("boot").empty());
}

TEST_CASE("boot finding: page tables that are not the kernel's own") {
    SymbolGuest g{{.root_symbol = false}};
    g.probe();
    CHECK(g.finding("boot").starts_with("early | the kernel does not run on its own page tables yet"));
}

TEST_CASE("build id: of the kernel's notes, else of VMCOREINFO, else it is said that there is none") {
    SymbolGuest g;
    SUBCASE("none") {
        g.probe();
        CHECK(g.finding("build_id").starts_with("unknown | the guest's kernel shows no build id"));
        CHECK(g.os->build_id().error().code == Errc::not_found);
    }
    SUBCASE("notes") {
        const auto notes = g.guest.in_image(20, 4, "__start_notes", 'R');
        g.guest.symbol(raw(notes) + 20, 'R', "__stop_notes");
        g.guest.put(notes, std::array<std::uint32_t, 5>{4, 4, 3, 0x00554e47, 0xefbeadde});
        g.probe();
        CHECK(g.finding("build_id") == "deadbeef | the kernel's notes");
        CHECK(g.os->build_id()->size() == 4);
    }
    SUBCASE("VMCOREINFO") {
        g.guest.vmcoreinfo("OSRELEASE=6.12.1-test\nBUILD-ID=0badcafe\nSYMBOL(_stext)=" +
                           hex(g.guest.text()).substr(2) + "\n");
        g.probe();
        CHECK(g.finding("build_id") == "0badcafe | VMCOREINFO");
    }
    SUBCASE("VMCOREINFO with what is no number") {
        g.guest.vmcoreinfo("OSRELEASE=6.12.1-test\nBUILD-ID=0badcafx\nSYMBOL(_stext)=" +
                           hex(g.guest.text()).substr(2) + "\n");
        g.probe();
        CHECK(g.finding("build_id").starts_with("unknown | "));
    }
}

TEST_CASE("the compiler of a kernel, by its banner") {
    const auto producer = [](std::string_view compilers) {
        return os::producer_of("Linux version 6.1.0 (builder@example.org) " + std::string{compilers} +
                               " #1 SMP 6.1.176-1");
    };
    CHECK(producer("(gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40)") ==
          "GNU C 12.2.0");
    CHECK(producer("(gcc-10 (Debian 10.2.1-6) 10.2.1 20210110, GNU ld (GNU Binutils for Debian) 2.35.2)") ==
          "GNU C 10.2.1");
    CHECK(producer("(gcc (GCC) 15.1.1, GNU ld 2.44)") == "GNU C 15.1.1");
    CHECK(producer("(gcc version 8.3.0 (Debian 8.3.0-6))") == "GNU C 8.3.0");
    CHECK(producer("(gcc 13.2)") == "GNU C 13.2");
    // No compiler's number, or none of GCC's: nothing is claimed.
    CHECK(producer("(clang version 19.1.7, LLD 19.1.7)") == "exogdb");
    CHECK(producer("(gcc-12 (Debian 12.2.0-14+deb12u1))") == "exogdb");
    CHECK(producer("(gcc") == "exogdb");
    CHECK(os::producer_of("") == "exogdb");
}
