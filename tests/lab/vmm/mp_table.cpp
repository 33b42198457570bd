#include <algorithm>
#include <cstring>
#include <numeric>

#include "tests/lab/vmm/load.h"

namespace vmm {
namespace {

constexpr uint64_t pointer_address = 0xf0000, table_address = 0xf0010;
constexpr uint32_t local_apic = 0xfee00000, io_apic = 0xfec00000;

// Multiprocessor Specification 1.4, chapter 4: its structures, with the section of each.
struct [[gnu::packed]] FloatingPointer {  // 4.1
    char signature[4] = {'_', 'M', 'P', '_'};
    uint32_t table = table_address;
    uint8_t length = 1;  // in 16 bytes
    uint8_t version = 4;
    uint8_t checksum = 0;
    uint8_t features[5] = {};  // none: there is a table, and no PIC mode
};
struct [[gnu::packed]] TableHeader {  // 4.2
    char signature[4] = {'P', 'C', 'M', 'P'};
    uint16_t length = 0;
    uint8_t version = 4;
    uint8_t checksum = 0;
    char maker[8] = {'E', 'X', 'O', 'G', 'D', 'B', ' ', ' '};
    char product[12] = {'S', 'M', 'A', 'L', 'L', ' ', 'V', 'M', 'M', ' ', ' ', ' '};
    uint32_t oem_table = 0;
    uint16_t oem_size = 0;
    uint16_t entries = 0;
    uint32_t apic = local_apic;
    uint32_t extended = 0;
};
struct [[gnu::packed]] Processor {  // 4.3.1
    uint8_t type = 0;
    uint8_t apic_id = 0;
    uint8_t apic_version = 0x14;
    uint8_t flags = 0;  // 1: usable, 2: the one that starts
    uint32_t signature = 0x600;
    uint32_t features = 0x201;  // FPU, APIC
    uint32_t reserved[2] = {};
};
struct [[gnu::packed]] Bus {  // 4.3.2
    uint8_t type = 1;
    uint8_t id = 0;
    char name[6] = {'I', 'S', 'A', ' ', ' ', ' '};
};
struct [[gnu::packed]] IoApic {  // 4.3.3
    uint8_t type = 2;
    uint8_t id = 0;
    uint8_t version = 0x11;
    uint8_t flags = 1;
    uint32_t address = io_apic;
};
struct [[gnu::packed]] Interrupt {  // 4.3.4, 4.3.5
    uint8_t type = 3;               // 3: wired to the I/O APIC, 4: to the local ones
    uint8_t kind = 0;               // 0: vectored, 1: NMI, 3: by the 8259
    uint16_t flags = 0;             // polarity and trigger as the bus has them
    uint8_t bus = 0;
    uint8_t bus_line = 0;
    uint8_t apic_id = 0;
    uint8_t apic_line = 0;
};

template <class Structure>
void append_entry(std::vector<uint8_t>& table, const Structure& entry) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(&entry);
    table.insert(table.end(), bytes, bytes + sizeof entry);
}

// What makes all bytes add up to 0.
uint8_t checksum_of(const std::vector<uint8_t>& bytes) {
    return static_cast<uint8_t>(-std::accumulate(bytes.begin(), bytes.end(), 0U));
}

}  // namespace

void write_mp_table(const GuestMemory& memory, unsigned cpus) {
    constexpr unsigned isa_lines = 16;
    constexpr uint8_t every_apic = 0xff;
    auto io_apic_id = static_cast<uint8_t>(cpus);
    std::vector<uint8_t> table;
    append_entry(table, TableHeader{.entries = static_cast<uint16_t>(cpus + 2 + isa_lines - 1 + 2)});
    for (unsigned cpu = 0; cpu < cpus; ++cpu)
        append_entry(table, Processor{.apic_id = static_cast<uint8_t>(cpu),
                                      .flags = static_cast<uint8_t>(cpu == 0 ? 3 : 1)});
    append_entry(table, Bus{});
    append_entry(table, IoApic{.id = io_apic_id});
    for (uint8_t line = 0; line < isa_lines; ++line) {
        if (line == 2) continue;  // the cascade; KVM routes line 0, the timer, to input 2
        auto input = static_cast<uint8_t>(line == 0 ? 2 : line);
        append_entry(table, Interrupt{.bus_line = line, .apic_id = io_apic_id, .apic_line = input});
    }
    append_entry(table, Interrupt{.type = 4, .kind = 3, .apic_id = 0, .apic_line = 0});
    append_entry(table, Interrupt{.type = 4, .kind = 1, .apic_id = every_apic, .apic_line = 1});

    auto length = static_cast<uint16_t>(table.size());
    std::memcpy(&table[offsetof(TableHeader, length)], &length, sizeof length);
    table[offsetof(TableHeader, checksum)] = checksum_of(table);
    memory.write(table_address, table.data(), table.size());

    std::vector<uint8_t> pointer;
    append_entry(pointer, FloatingPointer{});
    pointer[offsetof(FloatingPointer, checksum)] = checksum_of(pointer);
    memory.write(pointer_address, pointer.data(), pointer.size());
}

}  // namespace vmm
