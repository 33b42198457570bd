#include "os-awareness/symbols.h"

#include <doctest/doctest.h>

#include <string>

using namespace exo;
using namespace exo::os;

namespace {

SymbolTable table() {
    SymbolTable symbols;
    symbols.add(VirtualAddress{0x3000}, 'T', "later");
    symbols.add(VirtualAddress{0x1000}, 'T', "first");
    symbols.add(VirtualAddress{0x2000}, 'T', "kallsyms_prefers_this");
    symbols.add(VirtualAddress{0x2000}, 't', "alias");
    symbols.add(VirtualAddress{0x2800}, 't', "twice");
    symbols.add(VirtualAddress{0x1800}, 't', "twice");
    symbols.finish();
    return symbols;
}

std::string located(const SymbolTable& symbols, std::uint64_t address) {
    const auto found = symbols.locate(VirtualAddress{address});
    return found ? std::string{found->name} + "+" + std::to_string(found->offset) : "nothing";
}

}  // namespace

TEST_CASE("symbols: by address") {
    const auto symbols = table();
    REQUIRE(symbols.by_address().size() == 6);
    CHECK(symbols.name(symbols.by_address()[0]) == "first");
    CHECK(symbols.by_address()[0].type == 'T');
    CHECK(located(symbols, 0xfff) == "nothing");
    CHECK(located(symbols, 0x1000) == "first+0");
    CHECK(located(symbols, 0x2004) == "kallsyms_prefers_this+4");
    CHECK(located(symbols, ~std::uint64_t{0}) == "later+" + std::to_string(~std::uint64_t{0} - 0x3000));
}

TEST_CASE("symbols: by name, if it is the only one") {
    const auto symbols = table();
    CHECK(symbols.find_unique("first")->address == VirtualAddress{0x1000});
    CHECK(symbols.find_unique("alias")->type == 't');
    CHECK_FALSE(symbols.find_unique("twice"));
    CHECK_FALSE(symbols.find_unique("absent"));
}

TEST_CASE("symbols: by name; of several the lowest address") {
    const auto symbols = table();
    CHECK(symbols.find("first") == VirtualAddress{0x1000});
    CHECK(symbols.find("alias") == VirtualAddress{0x2000});
    CHECK(symbols.find("twice") == VirtualAddress{0x1800});
    CHECK(!symbols.find("firs"));
    CHECK(!symbols.find("first "));
    CHECK(!symbols.find(""));
}

TEST_CASE("symbols: an empty table finds nothing") {
    SymbolTable symbols;
    symbols.finish();
    CHECK(!symbols.find("x"));
    CHECK(!symbols.locate(VirtualAddress{1}));
}
