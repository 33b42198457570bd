#include "backends/kvm/landmarks.h"

#include <cstring>
#include <string_view>
#include <vector>

namespace exo::kvm {
namespace {

// Pointers are in the EBDA or in the BIOS area (ACPI 6.5, 5.2.5.1; MP specification 1.4, 4), but
// cloud-hypervisor's, which is at 0xa0000.
constexpr std::uint64_t area_start = 0x80000;
constexpr std::uint64_t area_end = 0x100000;
constexpr std::uint64_t pointer_alignment = 16;

constexpr std::uint64_t longest_table = 64U << 10U;

struct TablePointer {
    std::string_view signature;
    std::uint8_t size;     // bytes that the checksum is of
    std::uint8_t address;  // offset of the table's address
    std::uint8_t address_bytes;
    std::string_view table;     // its signature
    std::uint8_t length_bytes;  // of the table's length, at offset 4
};
// ACPI 6.5, tables 5.3 and 5.4; MP specification 1.4, tables 4-1 and 4-2.
constexpr TablePointer known_pointers[] = {
    {"RSD PTR ", 20, 16, 4, "RSDT", 4},
    {"RSD PTR ", 36, 24, 8, "XSDT", 4},
    {"_MP_", 16, 4, 4, "PCMP", 2},
};

std::uint64_t field(ConstBytes bytes, std::size_t offset, std::size_t size) {
    std::uint64_t value = 0;
    std::memcpy(&value, bytes.data() + offset, size);
    return value;
}

bool sums_to_zero(ConstBytes bytes) {
    unsigned sum = 0;
    for (const std::byte byte : bytes) sum += std::to_integer<unsigned>(byte);
    return (sum & 0xff) == 0;
}

bool is_table(PhysicalMemory& memory, PhysicalAddress address, const TablePointer& pointer) {
    std::vector<std::byte> table(8);
    if (!memory.read(address, table) || !as_text(table).starts_with(pointer.table)) return false;
    const std::uint64_t length = field(table, 4, pointer.length_bytes);
    if (length < table.size() || length > longest_table) return false;
    table.resize(length);
    return memory.read(address, table) && sums_to_zero(table);
}

}  // namespace

std::set<std::uint64_t> landmarks(const Guess& guess, const ReadVmm& read) {
    GuessMemory memory{guess, read};
    std::vector<std::byte> area(area_end - area_start);
    const std::size_t count = memory.read_some(PhysicalAddress{area_start}, area).value_or(0);
    std::set<std::uint64_t> found;
    for (const TablePointer& pointer : known_pointers) {
        for (std::size_t at = 0; at + pointer.size <= count; at += pointer_alignment) {
            const auto bytes = ConstBytes{area}.subspan(at, pointer.size);
            if (!as_text(bytes).starts_with(pointer.signature) || !sums_to_zero(bytes)) continue;
            const std::uint64_t table = field(bytes, pointer.address, pointer.address_bytes);
            if (!is_table(memory, PhysicalAddress{table}, pointer)) continue;
            found.insert({area_start + at, table});
        }
    }
    return found;
}

}  // namespace exo::kvm
