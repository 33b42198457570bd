#include "tests/lab/vmm/acpi.h"

#include <cstddef>
#include <cstring>
#include <numeric>
#include <vector>

namespace vmm {
namespace {

// Guest-physical addresses.
constexpr uint32_t root_pointer = 0xe0000, root_table = 0xe0040, fixed_table = 0xe0100,
                   firmware_table = 0xe0200, differentiated_table = 0xe0240, apic_table = 0xe0300;
constexpr uint32_t local_apic = 0xfee00000, io_apic = 0xfec00000;

// ACPI 6.5: the structures, with the section of each.
struct [[gnu::packed]] RootPointer {  // 5.2.5.3
    char signature[8] = {'R', 'S', 'D', ' ', 'P', 'T', 'R', ' '};
    uint8_t checksum = 0;
    char maker[6] = {'E', 'X', 'O', 'G', 'D', 'B'};
    uint8_t revision = 0;  // ACPI 1.0's: 32-bit addresses will do
    uint32_t root_table_address = root_table;
};

struct [[gnu::packed]] Header {  // 5.2.6
    char signature[4];
    uint32_t length = 0;
    uint8_t revision = 0;
    uint8_t checksum = 0;
    char maker[6] = {'E', 'X', 'O', 'G', 'D', 'B'};
    char table[8] = {'S', 'M', 'A', 'L', 'L', 'V', 'M', 'M'};
    uint32_t table_revision = 1;
    char creator[4] = {'E', 'X', 'O', 'G'};
    uint32_t creator_revision = 1;
};

struct [[gnu::packed]] Address {  // 5.2.3.2
    uint8_t space = 1;            // input/output
    uint8_t width = 8;
    uint8_t offset = 0;
    uint8_t access = 1;
    uint64_t address = keyboard_controller;
};

struct [[gnu::packed]] FixedTable {  // 5.2.9, as of revision 4
    Header header = {.signature = {'F', 'A', 'C', 'P'}, .revision = 4};
    uint32_t firmware = firmware_table;
    uint32_t differentiated = differentiated_table;
    uint8_t reserved = 0;
    uint8_t profile = 0;
    uint16_t interrupt = 9;
    uint32_t command_port = 0;  // none: ACPI is on
    uint8_t commands[4] = {};
    uint32_t events = power_events;
    uint32_t events_b = 0;
    uint32_t control = power_control;
    uint32_t others[5] = {};  // control b, control 2, timer, both general-purpose blocks: none
    uint8_t events_length = 4;
    uint8_t control_length = 2;
    uint8_t other_lengths[6] = {};
    uint16_t c2_latency = 0xfff;  // more than is allowed: there is no C2, and no C3
    uint16_t c3_latency = 0xfff;
    uint16_t flush[2] = {};
    uint8_t duty_and_clock[5] = {};
    uint16_t boot_architecture = 0x25;  // there are ISA devices, but no VGA and no real-time clock
    uint8_t reserved_1 = 0;
    uint32_t flags = 1 | 1 << 4 | 1 << 5 | 1 << 10;  // WBINVD works; no fixed buttons; a reset register
    Address reset = {};
    uint8_t reset_value = keyboard_reset;
    uint8_t reserved_2[3] = {};
    uint8_t extended[112] = {};  // the 64-bit addresses: those above count
};
static_assert(sizeof(FixedTable) == 244);

struct [[gnu::packed]] FirmwareTable {  // 5.2.10
    char signature[4] = {'F', 'A', 'C', 'S'};
    uint32_t length = 64;
    uint8_t rest[56] = {};
};

struct [[gnu::packed]] ApicHeader {  // 5.2.12
    Header header = {.signature = {'A', 'P', 'I', 'C'}, .revision = 4};
    uint32_t address = local_apic;
    uint32_t flags = 1;  // there are 8259s as well
};
struct [[gnu::packed]] LocalApic {  // 5.2.12.2
    uint8_t type = 0;
    uint8_t length = 8;
    uint8_t processor = 0;
    uint8_t id = 0;
    uint32_t flags = 1;  // enabled
};
struct [[gnu::packed]] IoApic {  // 5.2.12.3
    uint8_t type = 1;
    uint8_t length = 12;
    uint8_t id = 0;
    uint8_t reserved = 0;
    uint32_t address = io_apic;
    uint32_t first_interrupt = 0;
};
struct [[gnu::packed]] LocalNmi {  // 5.2.12.7
    uint8_t type = 4;
    uint8_t length = 6;
    uint8_t processor = 0xff;  // all
    uint16_t flags = 0;
    uint8_t input = 1;
};

// Name (_S5_, Package () {5, 0, 0, 0}): that power-off is sleep type 5 (20.2.5.1, 20.2.5.4; 7.4.2.6).
constexpr uint8_t power_off_code[] = {0x08, '_',  'S',  '5',  '_',  0x12, 0x07,
                                      0x04, 0x0a, 0x05, 0x00, 0x00, 0x00};

template <class Structure>
void append_structure(std::vector<uint8_t>& bytes, const Structure& structure) {
    const auto* first = reinterpret_cast<const uint8_t*>(&structure);
    bytes.insert(bytes.end(), first, first + sizeof structure);
}

// All bytes then add up to 0.
void set_checksum(std::vector<uint8_t>& bytes, size_t at) {
    bytes[at] = static_cast<uint8_t>(-std::accumulate(bytes.begin(), bytes.end(), 0U));
}

void write_table(const GuestMemory& memory, uint64_t address, std::vector<uint8_t> table) {
    auto length = static_cast<uint32_t>(table.size());
    std::memcpy(&table[offsetof(Header, length)], &length, sizeof length);
    set_checksum(table, offsetof(Header, checksum));
    memory.write(address, table.data(), table.size());
}

std::vector<uint8_t> apic_table_of(unsigned cpus) {
    std::vector<uint8_t> table;
    append_structure(table, ApicHeader{});
    for (unsigned cpu = 0; cpu < cpus; ++cpu)
        append_structure(table,
                         LocalApic{.processor = static_cast<uint8_t>(cpu), .id = static_cast<uint8_t>(cpu)});
    append_structure(table, IoApic{.id = static_cast<uint8_t>(cpus)});
    // No override for the timer: without a routing of the VMM's own, KVM has each ISA line at the input of
    // its number.
    append_structure(table, LocalNmi{});
    return table;
}

}  // namespace

void write_acpi_tables(const GuestMemory& memory, unsigned cpus) {
    std::vector<uint8_t> pointer, root, fixed, differentiated;
    append_structure(pointer, RootPointer{});
    set_checksum(pointer, offsetof(RootPointer, checksum));
    memory.write(root_pointer, pointer.data(), pointer.size());

    append_structure(root, Header{.signature = {'R', 'S', 'D', 'T'}, .revision = 1});
    append_structure(root, fixed_table);
    append_structure(root, apic_table);
    write_table(memory, root_table, root);

    append_structure(fixed, FixedTable{});
    write_table(memory, fixed_table, fixed);

    append_structure(differentiated, Header{.signature = {'D', 'S', 'D', 'T'}, .revision = 2});
    append_structure(differentiated, power_off_code);
    write_table(memory, differentiated_table, differentiated);

    FirmwareTable firmware;
    memory.write(firmware_table, &firmware, sizeof firmware);
    write_table(memory, apic_table, apic_table_of(cpus));
}

}  // namespace vmm
