#include "backends/arch/i386.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <string>

#include "backends/arch/x86_64.h"

namespace exo {
namespace {

RegisterNumber named(const RegisterLayout& layout, std::string_view name) {
    return layout.find(name).value();
}

TEST_CASE("a 32-bit program's registers are where gdb looks for them, and those of 64 bits are told apart") {
    const RegisterLayout& layout = i386::process_layout();
    CHECK(layout.architecture == "i386");
    CHECK(layout.registers[layout.pc].name == "eip");
    CHECK(layout.registers[layout.sp].name == "esp");
    std::uint32_t offset = 0;
    for (RegisterNumber number = 0; number < layout.registers.size(); ++number) {
        const RegisterInfo& info = layout.registers[number];
        const RegisterInfo& whole = x86::process_layout().registers[i386::whole(number).value()];
        CHECK(info.offset == offset);
        offset += info.bits / 8U;
        if (info.name.starts_with('e') || info.name == "orig_eax") continue;
        CHECK_MESSAGE(info.name == whole.name, std::string{info.name});
        CHECK(info.bits == whole.bits);
        CHECK(info.type == whole.type);
    }
    CHECK(layout.size == offset);
    CHECK_FALSE(i386::whole(static_cast<RegisterNumber>(layout.registers.size())));
    CHECK(i386::whole(named(layout, "ecx")) == x86::rcx);
    CHECK(i386::whole(named(layout, "ebx")) == x86::rbx);
    CHECK(i386::whole(named(layout, "esp")) == x86::rsp);
    CHECK(i386::whole(named(layout, "ebp")) == x86::rbp);
    CHECK(i386::whole(named(layout, "esi")) == x86::rsi);
    CHECK(i386::whole(named(layout, "edi")) == x86::rdi);
}

TEST_CASE("each is the low part of a register of 64 bits; what is not known stays so") {
    RegisterSet registers{x86::process_layout()};
    registers.set(x86::rax, 0xffffffff80000001);
    registers.set(x86::rip, 0x0804'9000);
    const RegisterSet narrow = i386::narrowed(registers);
    const RegisterLayout& layout = i386::process_layout();
    CHECK(narrow.get(named(layout, "eax")) == 0x80000001);
    CHECK(narrow.get(layout.pc) == 0x0804'9000);
    CHECK_FALSE(narrow.available(named(layout, "ebx")));
}

TEST_CASE("what is written is zero-extended, but for the system call that is none") {
    const RegisterLayout& layout = i386::process_layout();
    RegisterSet narrow{layout};
    const std::array numbers{named(layout, "eax"), named(layout, "orig_eax")};
    for (const RegisterNumber number : numbers) narrow.set(number, UINT32_MAX);
    RegisterSet registers{x86::process_layout()};
    registers.set(x86::rax, UINT64_MAX);
    registers.set(x86::rcx, 7);
    const auto written = i386::widen(narrow, numbers, registers);
    CHECK(written == std::vector<RegisterNumber>{x86::rax, x86::orig_rax});
    CHECK(registers.get(x86::rax) == UINT32_MAX);
    CHECK(registers.get(x86::orig_rax) == UINT64_MAX);
    CHECK(registers.get(x86::rcx) == 7);
}

}  // namespace
}  // namespace exo
