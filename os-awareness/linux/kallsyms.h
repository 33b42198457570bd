// The kernel's own symbol table (kallsyms), as it lies in memory: names and addresses in every layout
// since 2.6.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "os-awareness/linux/kallsyms_names.h"
#include "os-awareness/symbols.h"

namespace exo::os {

// How addresses are stored (kernel/kallsyms.c: kallsyms_sym_address).
enum class AddressEncoding : std::uint8_t {
    absolute,         // unsigned long each; removed in 6.11 (64e166099b69)
    base_relative,    // u32 + relative_base; 4.6 (2213e9a66bb8) to 6.19
    absolute_percpu,  // s32: >= 0 is the value itself, else relative_base - 1 - it; 4.6 to 6.14
                      // (01157ddc58dc)
    place_relative,   // s32 + its own address; since 7.0 (a081b5789255)
};
std::string_view to_string(AddressEncoding encoding);

struct Kallsyms {
    SymbolTable symbols;
    NameTable names;
    AddressEncoding encoding = AddressEncoding::absolute;
    bool addresses_first = false;  // before the names (up to 6.3), not after token_index
    std::string verified_by;       // "linux_banner, _text"

    [[nodiscard]] std::string description() const;  // one line: "157881 symbols, u32 markers, …"
};

// `image` is what is mapped from `start` on, zeros where nothing is. A table is taken if what its symbols say
// of the image is true: linux_banner reads "Linux version ", _text is `start`. not_found: no token table;
// bad_data: tables, but none that is consistent; the message says what was missing.
Result<Kallsyms> parse_kallsyms(ConstBytes image, VirtualAddress start);

}  // namespace exo::os
