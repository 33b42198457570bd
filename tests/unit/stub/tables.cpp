#include "stub/tables.h"

#include <doctest/doctest.h>

using namespace exo;

namespace {

os::SymbolTable two_functions() {
    os::SymbolTable symbols;
    symbols.add(VirtualAddress{0xffffffff81000000}, 't', "caller");
    symbols.add(VirtualAddress{0xffffffff81000100}, 't', "after_it");
    symbols.finish();
    return symbols;
}

}  // namespace

TEST_CASE("frames have their functions: a return address that of the call, an interrupted one its own") {
    const auto symbols = two_functions();
    const VirtualAddress border{0xffffffff81000100};
    CHECK(stub::backtrace_text({{{border, true}, {border, false}, {border, true}}, {}}, symbols) ==
          "#0  0xffffffff81000100 after_it+0x0\n"
          "#1  0xffffffff81000100 caller+0x100\n"
          "#2  0xffffffff81000100 after_it+0x0\n");
}

TEST_CASE("a frame of user mode, and why a trace breaks off") {
    const auto symbols = two_functions();
    CHECK(stub::backtrace_text({{{VirtualAddress{0x401000}, true}}, {}}, symbols) ==
          "#0  0x401000 in user mode\n");
    CHECK(stub::backtrace_text({{{VirtualAddress{0}, true}}, "why"}, symbols) ==
          "#0  0x0\n"
          "    broken off: why\n");
    CHECK(stub::backtrace_text({{}, "why"}, symbols) == "    broken off: why\n");
}
