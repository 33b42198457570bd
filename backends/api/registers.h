// Register files as data: a layout is a table, a RegisterSet is bytes plus what is known of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "backends/api/memory.h"

namespace exo {

// gdb's register number: the index into RegisterLayout::registers, and the order of the `g` packet.
using RegisterNumber = std::uint16_t;

struct RegisterInfo {
    std::string_view name;     // gdb's name, as in its feature XML
    std::uint16_t bits = 0;    // multiple of 8
    std::string_view type;     // target.xml type: "int64", "data_ptr", "i387_ext", "x64_cr0" …
    std::string_view group;    // target.xml group, empty for gdb's own choice
    std::uint8_t feature = 0;  // index into RegisterLayout::features
    std::uint32_t offset = 0;  // bytes, in RegisterSet::bytes() and in `g`
    // target.xml's save-restore="no": a debugger must not write it back after an inferior call.
    bool save_restore = true;
    // DWARF number (System V psABI), -1 where there is none; lldb wants it.
    std::int16_t dwarf = -1;
    std::string_view generic;   // lldb's generic name: "pc", "sp", "fp", "flags", "arg1" …
    std::string_view alt_name;  // lldb's alternate name
};

struct RegisterFeature {
    std::string_view name;   // "org.gnu.gdb.i386.core"
    std::string_view types;  // XML of the <flags>, <union>, <vector> types that its registers use
};

struct RegisterLayout {
    std::string_view architecture;  // <architecture>: "i386:x86-64"
    std::span<const RegisterFeature> features;
    std::span<const RegisterInfo> registers;
    std::uint32_t size = 0;  // bytes of all registers together
    // Sent along in every stop reply, so that the client needs no `g` to show a frame.
    std::span<const RegisterNumber> expedited;
    RegisterNumber pc = 0;
    RegisterNumber sp = 0;
    std::string_view osabi{};  // <osabi>: "GNU/Linux"; empty where nobody is to assume one

    [[nodiscard]] std::optional<RegisterNumber> find(std::string_view name) const;
};

// One thread's registers. Each starts out unavailable; unavailable is not 0.
class RegisterSet {
public:
    explicit RegisterSet(const RegisterLayout& layout);

    [[nodiscard]] const RegisterLayout& layout() const { return *layout_; }
    [[nodiscard]] bool available(RegisterNumber number) const { return available_.at(number); }

    // Bytes in guest order (little-endian), whatever availability says.
    [[nodiscard]] ConstBytes bytes(RegisterNumber number) const;
    // The low 64 bits; nothing if unavailable.
    [[nodiscard]] std::optional<std::uint64_t> get(RegisterNumber number) const;

    void set(RegisterNumber number, std::uint64_t value);  // zero-extended, available from now on
    // `value` is cut or zero-extended to the register's size.
    void set_bytes(RegisterNumber number, ConstBytes value);
    void set_unavailable(RegisterNumber number);

private:
    const RegisterLayout* layout_;
    std::vector<std::byte> bytes_;
    std::vector<bool> available_;
};

}  // namespace exo
