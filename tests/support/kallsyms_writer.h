// Writes kallsyms tables as the kernel's build does (scripts/kallsyms.c), in each layout that ever was.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "os-awareness/linux/kallsyms.h"

namespace exo::test {

struct KallsymsShape {
    os::AddressEncoding encoding = os::AddressEncoding::absolute_percpu;
    os::NameLength length = os::NameLength::uleb128;
    bool addresses_first = false;   // up to 6.3
    std::uint8_t marker_bytes = 4;  // 8 before 4.20
    std::uint8_t sequence_bytes =
        3;                      // seqs_of_names: 0 before 6.2 (and some stable kernels), 4 at first, then 3
    std::size_t alignment = 8;  // of each table; 4 since 7.0
};

// The layouts of kernels, by the version from which on they are found.
namespace kallsyms_of {
inline constexpr KallsymsShape v2_6{os::AddressEncoding::absolute, os::NameLength::one_byte, true, 8, 0, 8};
inline constexpr KallsymsShape v4_6{
    os::AddressEncoding::absolute_percpu, os::NameLength::one_byte, true, 8, 0, 8};
inline constexpr KallsymsShape v4_20{
    os::AddressEncoding::absolute_percpu, os::NameLength::one_byte, true, 4, 0, 8};
inline constexpr KallsymsShape v6_1{
    os::AddressEncoding::absolute_percpu, os::NameLength::uleb128, true, 4, 0, 8};
inline constexpr KallsymsShape v6_1_stable{
    os::AddressEncoding::absolute_percpu, os::NameLength::uleb128, true, 4, 3, 8};
inline constexpr KallsymsShape v6_2_first{
    os::AddressEncoding::absolute_percpu, os::NameLength::uleb128, true, 4, 4, 8};
inline constexpr KallsymsShape v6_4{
    os::AddressEncoding::absolute_percpu, os::NameLength::uleb128, false, 4, 3, 8};
inline constexpr KallsymsShape v6_15{
    os::AddressEncoding::base_relative, os::NameLength::uleb128, false, 4, 3, 8};
inline constexpr KallsymsShape v7_0{
    os::AddressEncoding::place_relative, os::NameLength::uleb128, false, 4, 3, 4};
}  // namespace kallsyms_of

struct NamedSymbol {
    std::uint64_t address = 0;  // below relative_base for a per-CPU symbol of an absolute-percpu kernel
    char type = 'T';
    std::string name;
};

struct WrittenKallsyms {
    std::vector<std::byte> bytes;
    // Offsets in `bytes`, for tests that break something.
    std::size_t num_syms = 0;
    std::size_t names = 0;
    std::size_t markers = 0;
    std::size_t token_table = 0;
    std::size_t token_index = 0;
    std::size_t addresses = 0;
};

// `symbols` in any order; `base` is relative_base (_text); the tables will be at `at`, which is aligned to 8.
WrittenKallsyms write_kallsyms(const KallsymsShape& shape, std::vector<NamedSymbol> symbols,
                               std::uint64_t base, VirtualAddress at);

}  // namespace exo::test
