// A small unwinder over .debug_frame, to test what is written there by what a debugger would make of it.
// After DWARF 5, section 6.4, of which it knows the instructions and operations that cfi.h writes. It chooses
// frames and their pc as gdb 13 does (get_frame_address_in_block, dwarf2_frame_sniffer).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "os-awareness/dwarf/cfi.h"

namespace exo::test {

struct CfiFrame {
    std::map<os::cfi::Register, std::uint64_t> registers;  // those that are known; pc is return_address
    bool called = false;                                   // its pc is a return address
    bool signal = false;                                   // filled in by step(): of type SIGTRAMP
    std::uint64_t cfa = 0;                                 // filled in by step()

    [[nodiscard]] std::optional<std::uint64_t> get(os::cfi::Register reg) const {
        const auto it = registers.find(reg);
        return it == registers.end() ? std::nullopt : std::optional{it->second};
    }
    [[nodiscard]] std::uint64_t pc() const { return get(os::cfi::Register::return_address).value_or(0); }
};

class CfiReader {
public:
    using Memory = std::function<std::optional<std::uint64_t>(std::uint64_t address)>;

    enum class Outcome : std::uint8_t { caller, outermost, no_fde, unreadable };

    struct Fde {
        std::uint64_t start = 0, size = 0;
        std::size_t cie = 0;  // index
        os::cfi::Bytes instructions;
    };
    struct Cie {
        std::uint32_t offset = 0;
        bool signal = false;
        os::cfi::Bytes instructions;
    };

    // Nothing if it is no well-formed section.
    static std::optional<CfiReader> parse(const os::cfi::Bytes& section);

    // From `frame` to its caller, or why there is none.
    Outcome step(CfiFrame& frame, const Memory& memory, CfiFrame& caller) const;

    [[nodiscard]] const std::vector<Fde>& fdes() const { return fdes_; }
    [[nodiscard]] const Fde* find(std::uint64_t pc) const;
    // Every instruction of every FDE can be decoded.
    [[nodiscard]] bool well_formed() const;

private:
    std::vector<Cie> cies_;
    std::vector<Fde> fdes_;
};

}  // namespace exo::test
