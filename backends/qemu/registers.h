// QEMU's two ways of telling registers, onto exo::x86's layout: its gdb stub's `g` packet and HMP's
// `info registers -a`. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "backends/api/registers.h"
#include "backends/api/result.h"
#include "backends/api/target.h"
#include "rsp/client.h"

namespace exo::qemu {

// Where each of our registers lies in the stub's `g` packet, by the names in the stub's target.xml.
class RegisterMap {
public:
    RegisterMap() = default;
    RegisterMap(const RegisterLayout& ours, std::span<const rsp::DescribedRegister> theirs);

    // From the payload of a `g` reply: "xx" digits, and registers that it is too short for, are unavailable.
    // bad_data if it is not hex.
    Result<void> fill(RegisterSet& registers, std::string_view g) const;
    // The stub's number of a register, for its P packet.
    [[nodiscard]] std::optional<std::uint32_t> stub_number(RegisterNumber ours) const;
    // Bytes of a register in the stub's P packet.
    [[nodiscard]] std::uint32_t stub_size(RegisterNumber ours) const;
    [[nodiscard]] bool empty() const { return entries_.empty(); }

private:
    struct Entry {
        RegisterNumber ours = 0;
        std::uint32_t theirs = 0;
        std::uint32_t offset = 0;  // bytes, in `g`
        std::uint32_t size = 0;    // bytes
    };
    [[nodiscard]] const Entry* find(RegisterNumber ours) const;
    std::vector<Entry> entries_;
};

// The text of vCPU `index` in `info registers -a`: from "CPU#index" on to the next one. Nothing if it is not
// there.
std::optional<std::string_view> monitor_section(std::string_view text, std::uint32_t index);

// Which registers to take from the monitor's text.
enum class Take : std::uint8_t {
    all,      // of a running guest: all that the text has
    missing,  // those that are still unavailable
};

// Sets what the text of one vCPU tells (QEMU target/i386/cpu-dump.c): general registers, segments, control
// registers, SSE and AVX. x87 registers are left out: QEMU prints them by physical number.
void fill_from_monitor(RegisterSet& registers, std::string_view section, Take take);

// What the same text tells beside registers.
VcpuState state_from_monitor(std::string_view section);

}  // namespace exo::qemu
