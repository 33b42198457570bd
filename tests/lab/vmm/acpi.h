// The ACPI tables of a small PC: enough for an operating system to find its CPUs, the I/O APIC, reset and
// power-off.
#pragma once

#include <cstdint>

#include "tests/lab/vmm/memory.h"

namespace vmm {

// Input/output ports of the fixed hardware that the tables name.
constexpr uint16_t power_events = 0x600;           // status and enable, 16 bits each: nothing ever happens
constexpr uint16_t power_control = 0x604;          // 16 bits
constexpr uint16_t power_control_enabled = 1;      // SCI_EN: ACPI is on from the start
constexpr uint16_t power_control_sleep = 1 << 13;  // SLP_EN: writing it powers off
constexpr uint16_t keyboard_controller = 0x64;
constexpr uint8_t keyboard_reset = 0xfe;  // written there: pulse the reset line

// Writes them at 0xe0000, where an operating system looks for them.
void write_acpi_tables(const GuestMemory& memory, unsigned cpus);

}  // namespace vmm
