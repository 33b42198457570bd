#include "stub/tables.h"

#include <doctest/doctest.h>

using namespace exo;

namespace {

// Two functions, one behind the other, and one in a module.
std::optional<os::Place> locate(VirtualAddress address) {
    const auto behind = [&](std::uint64_t start) { return raw(address) - start; };
    if (raw(address) < 0xffffffff81000000) return std::nullopt;
    if (raw(address) < 0xffffffff81000100) return os::Place{"caller", behind(0xffffffff81000000), {}};
    if (raw(address) < 0xffffffffc0000000) return os::Place{"after_it", behind(0xffffffff81000100), {}};
    return os::Place{"tun_chr_open", behind(0xffffffffc0000000), "tun"};
}

}  // namespace

TEST_CASE("frames have their functions: a return address that of the call, an interrupted one its own") {
    const VirtualAddress border{0xffffffff81000100};
    CHECK(stub::backtrace_text({{{border, true}, {border, false}, {border, true}}, {}}, locate) ==
          "#0  0xffffffff81000100 after_it+0x0\n"
          "#1  0xffffffff81000100 caller+0x100\n"
          "#2  0xffffffff81000100 after_it+0x0\n");
    CHECK(stub::backtrace_text({{{VirtualAddress{0xffffffffc0000008}, true}}, {}}, locate) ==
          "#0  0xffffffffc0000008 tun_chr_open+0x8 [tun]\n");
}

TEST_CASE("a frame of user mode, and why a trace breaks off") {
    CHECK(stub::backtrace_text({{{VirtualAddress{0x401000}, true}}, {}}, locate) ==
          "#0  0x401000 in user mode\n");
    CHECK(stub::backtrace_text({{{VirtualAddress{0}, true}}, "why"}, locate) ==
          "#0  0x0\n"
          "    broken off: why\n");
    CHECK(stub::backtrace_text({{}, "why"}, locate) == "    broken off: why\n");
}
