#include "backends/arch/i386.h"

#include <algorithm>
#include <array>

#include "backends/arch/x86_64.h"

namespace exo::i386 {
namespace {

enum Feature : std::uint8_t { core, sse, linux_abi, avx };

// Each row: name, register of x86::process_layout(), bits, type, feature, [DWARF number, lldb generic].
struct Row {
    std::string_view name;
    RegisterNumber whole;
    std::uint16_t bits;
    std::string_view type;
    Feature feature;
    std::int16_t dwarf = -1;
    std::string_view generic = {};
};

// clang-format off
constexpr auto rows = std::to_array<Row>({
    {"eax", x86::rax, 32, "int32", core, 0},
    {"ecx", x86::rcx, 32, "int32", core, 1},
    {"edx", x86::rdx, 32, "int32", core, 2},
    {"ebx", x86::rbx, 32, "int32", core, 3},
    {"esp", x86::rsp, 32, "data_ptr", core, 4, "sp"},
    {"ebp", x86::rbp, 32, "data_ptr", core, 5, "fp"},
    {"esi", x86::rsi, 32, "int32", core, 6},
    {"edi", x86::rdi, 32, "int32", core, 7},
    {"eip", x86::rip, 32, "code_ptr", core, 8, "pc"},
    {"eflags", x86::eflags, 32, "i386_eflags", core, 9, "flags"},
    {"cs", x86::cs, 32, "int32", core, 41},
    {"ss", x86::ss, 32, "int32", core, 42},
    {"ds", x86::ds, 32, "int32", core, 43},
    {"es", x86::es, 32, "int32", core, 40},
    {"fs", x86::fs, 32, "int32", core, 44},
    {"gs", x86::gs, 32, "int32", core, 45},
    {"st0", x86::st0, 80, "i387_ext", core, 11},
    {"st1", x86::st0 + 1, 80, "i387_ext", core, 12},
    {"st2", x86::st0 + 2, 80, "i387_ext", core, 13},
    {"st3", x86::st0 + 3, 80, "i387_ext", core, 14},
    {"st4", x86::st0 + 4, 80, "i387_ext", core, 15},
    {"st5", x86::st0 + 5, 80, "i387_ext", core, 16},
    {"st6", x86::st0 + 6, 80, "i387_ext", core, 17},
    {"st7", x86::st7, 80, "i387_ext", core, 18},
    {"fctrl", x86::fctrl, 32, "int", core, 37},
    {"fstat", x86::fstat, 32, "int", core, 38},
    {"ftag", x86::ftag, 32, "int", core},
    {"fiseg", x86::fiseg, 32, "int", core},
    {"fioff", x86::fioff, 32, "int", core},
    {"foseg", x86::foseg, 32, "int", core},
    {"fooff", x86::fooff, 32, "int", core},
    {"fop", x86::fop, 32, "int", core},
    {"xmm0", x86::xmm0, 128, "vec128", sse, 21},
    {"xmm1", x86::xmm0 + 1, 128, "vec128", sse, 22},
    {"xmm2", x86::xmm0 + 2, 128, "vec128", sse, 23},
    {"xmm3", x86::xmm0 + 3, 128, "vec128", sse, 24},
    {"xmm4", x86::xmm0 + 4, 128, "vec128", sse, 25},
    {"xmm5", x86::xmm0 + 5, 128, "vec128", sse, 26},
    {"xmm6", x86::xmm0 + 6, 128, "vec128", sse, 27},
    {"xmm7", x86::xmm0 + 7, 128, "vec128", sse, 28},
    {"mxcsr", x86::mxcsr, 32, "i386_mxcsr", sse, 39},
    {"orig_eax", x86::orig_rax, 32, "int", linux_abi},
    {"ymm0h", x86::ymm0h, 128, "uint128", avx},
    {"ymm1h", x86::ymm0h + 1, 128, "uint128", avx},
    {"ymm2h", x86::ymm0h + 2, 128, "uint128", avx},
    {"ymm3h", x86::ymm0h + 3, 128, "uint128", avx},
    {"ymm4h", x86::ymm0h + 4, 128, "uint128", avx},
    {"ymm5h", x86::ymm0h + 5, 128, "uint128", avx},
    {"ymm6h", x86::ymm0h + 6, 128, "uint128", avx},
    {"ymm7h", x86::ymm0h + 7, 128, "uint128", avx},
});
// clang-format on

constexpr RegisterNumber eip = 8, esp = 4;
static_assert(rows[eip].name == "eip" && rows[esp].name == "esp");

constexpr auto registers = [] {
    std::array<RegisterInfo, rows.size()> infos{};
    std::uint32_t offset = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        infos[i] = {.name = rows[i].name,
                    .bits = rows[i].bits,
                    .type = rows[i].type,
                    .feature = rows[i].feature,
                    .offset = offset,
                    .dwarf = rows[i].dwarf,
                    .generic = rows[i].generic};
        offset += rows[i].bits / 8U;
    }
    return infos;
}();

constexpr auto expedited = std::to_array<RegisterNumber>({eip, esp, 5, 9, 0, 1, 2, 3, 6, 7});

// The types are those of 64-bit programs, by name and by bit.
std::array<RegisterFeature, 4> features() {
    const auto of_x86 = [](std::string_view name) {
        return *std::ranges::find(x86::process_layout().features, name, &RegisterFeature::name);
    };
    return {of_x86("org.gnu.gdb.i386.core"), of_x86("org.gnu.gdb.i386.sse"), of_x86("org.gnu.gdb.i386.linux"),
            of_x86("org.gnu.gdb.i386.avx")};
}

}  // namespace

const RegisterLayout& process_layout() {
    static const auto parts = features();
    static const RegisterLayout result{
        .architecture = "i386",
        .features = parts,
        .registers = registers,
        .size = registers.back().offset + registers.back().bits / 8U,
        .expedited = expedited,
        .pc = eip,
        .sp = esp,
        .osabi = "GNU/Linux",
    };
    return result;
}

std::optional<RegisterNumber> whole(RegisterNumber number) {
    return number < rows.size() ? std::optional{rows[number].whole} : std::nullopt;
}

RegisterSet narrowed(const RegisterSet& registers_of_64) {
    RegisterSet result{process_layout()};
    RegisterNumber number = 0;
    for (const Row& row : rows) {
        if (registers_of_64.available(row.whole)) result.set_bytes(number, registers_of_64.bytes(row.whole));
        ++number;
    }
    return result;
}

std::vector<RegisterNumber> widen(const RegisterSet& values, std::span<const RegisterNumber> numbers,
                                  RegisterSet& registers_of_64) {
    std::vector<RegisterNumber> result;
    for (const RegisterNumber number : numbers) {
        const auto target = rows.at(number).whole;
        registers_of_64.set_bytes(target, values.bytes(number));
        // The kernel compares all of it with -1, "no system call" (putreg32(), arch/x86/kernel/ptrace.c).
        if (target == x86::orig_rax)
            registers_of_64.set(target, static_cast<std::uint64_t>(static_cast<std::int64_t>(
                                            static_cast<std::int32_t>(values.get(number).value_or(0)))));
        result.push_back(target);
    }
    return result;
}

}  // namespace exo::i386
