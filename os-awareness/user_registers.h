// Registers of a task's user mode, which are in more than one place at a time while the kernel runs.
#pragma once

#include <cstdint>
#include <vector>

#include "backends/api/registers.h"

namespace exo::os {

// From where the value of a register was read, and whither it is to be written.
struct RegisterPlace {
    enum class Kind : std::uint8_t { nowhere, vcpu, memory };
    Kind kind = Kind::nowhere;
    RegisterNumber number = 0;  // of the vCPU's register that has it
    VirtualAddress address{};   // in the kernel's half
    std::uint32_t size = 0;     // bytes there, which may be less than the register has
};

struct UserRegisters {
    // `layout`: x86::process_layout() or its like.
    explicit UserRegisters(const RegisterLayout& layout) : values(layout), places(layout.registers.size()) {}

    RegisterSet values;
    std::vector<RegisterPlace> places;  // by register number
};

}  // namespace exo::os
