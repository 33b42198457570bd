#include "backends/arch/x86_64.h"

#include <algorithm>
#include <array>

namespace exo::x86 {
namespace {

enum Feature : std::uint8_t { core, sse, avx, segments, system, process };

// The flag and vector types are those of gdb/features/i386/64bit-*.xml, by name and by bit.
constexpr auto features = std::to_array<RegisterFeature>({
    {"org.gnu.gdb.i386.core",
     R"(<flags id="i386_eflags" size="4">)"
     R"(<field name="CF" start="0" end="0"/><field name="" start="1" end="1"/>)"
     R"(<field name="PF" start="2" end="2"/><field name="AF" start="4" end="4"/>)"
     R"(<field name="ZF" start="6" end="6"/><field name="SF" start="7" end="7"/>)"
     R"(<field name="TF" start="8" end="8"/><field name="IF" start="9" end="9"/>)"
     R"(<field name="DF" start="10" end="10"/><field name="OF" start="11" end="11"/>)"
     R"(<field name="NT" start="14" end="14"/><field name="RF" start="16" end="16"/>)"
     R"(<field name="VM" start="17" end="17"/><field name="AC" start="18" end="18"/>)"
     R"(<field name="VIF" start="19" end="19"/><field name="VIP" start="20" end="20"/>)"
     R"(<field name="ID" start="21" end="21"/></flags>)"},
    {"org.gnu.gdb.i386.sse",
     R"(<vector id="v8bf16" type="bfloat16" count="8"/><vector id="v4f" type="ieee_single" count="4"/>)"
     R"(<vector id="v2d" type="ieee_double" count="2"/><vector id="v16i8" type="int8" count="16"/>)"
     R"(<vector id="v8i16" type="int16" count="8"/><vector id="v4i32" type="int32" count="4"/>)"
     R"(<vector id="v2i64" type="int64" count="2"/>)"
     R"(<union id="vec128"><field name="v8_bfloat16" type="v8bf16"/><field name="v4_float" type="v4f"/>)"
     R"(<field name="v2_double" type="v2d"/><field name="v16_int8" type="v16i8"/>)"
     R"(<field name="v8_int16" type="v8i16"/><field name="v4_int32" type="v4i32"/>)"
     R"(<field name="v2_int64" type="v2i64"/><field name="uint128" type="uint128"/></union>)"
     R"(<flags id="i386_mxcsr" size="4">)"
     R"(<field name="IE" start="0" end="0"/><field name="DE" start="1" end="1"/>)"
     R"(<field name="ZE" start="2" end="2"/><field name="OE" start="3" end="3"/>)"
     R"(<field name="UE" start="4" end="4"/><field name="PE" start="5" end="5"/>)"
     R"(<field name="DAZ" start="6" end="6"/><field name="IM" start="7" end="7"/>)"
     R"(<field name="DM" start="8" end="8"/><field name="ZM" start="9" end="9"/>)"
     R"(<field name="OM" start="10" end="10"/><field name="UM" start="11" end="11"/>)"
     R"(<field name="PM" start="12" end="12"/><field name="FZ" start="15" end="15"/></flags>)"},
    {"org.gnu.gdb.i386.avx", ""},
    {"org.gnu.gdb.i386.segments", ""},
    {"org.exogdb.x86.system",
     R"(<flags id="x64_cr0" size="8"><field name="PE" start="0" end="0"/>)"
     R"(<field name="MP" start="1" end="1"/><field name="EM" start="2" end="2"/>)"
     R"(<field name="TS" start="3" end="3"/><field name="ET" start="4" end="4"/>)"
     R"(<field name="NE" start="5" end="5"/><field name="WP" start="16" end="16"/>)"
     R"(<field name="AM" start="18" end="18"/><field name="NW" start="29" end="29"/>)"
     R"(<field name="CD" start="30" end="30"/><field name="PG" start="31" end="31"/></flags>)"
     R"(<flags id="x64_cr4" size="8"><field name="VME" start="0" end="0"/>)"
     R"(<field name="PVI" start="1" end="1"/><field name="TSD" start="2" end="2"/>)"
     R"(<field name="DE" start="3" end="3"/><field name="PSE" start="4" end="4"/>)"
     R"(<field name="PAE" start="5" end="5"/><field name="MCE" start="6" end="6"/>)"
     R"(<field name="PGE" start="7" end="7"/><field name="PCE" start="8" end="8"/>)"
     R"(<field name="OSFXSR" start="9" end="9"/><field name="OSXMMEXCPT" start="10" end="10"/>)"
     R"(<field name="UMIP" start="11" end="11"/><field name="LA57" start="12" end="12"/>)"
     R"(<field name="VMXE" start="13" end="13"/><field name="SMXE" start="14" end="14"/>)"
     R"(<field name="FSGSBASE" start="16" end="16"/><field name="PCIDE" start="17" end="17"/>)"
     R"(<field name="OSXSAVE" start="18" end="18"/><field name="SMEP" start="20" end="20"/>)"
     R"(<field name="SMAP" start="21" end="21"/><field name="PKE" start="22" end="22"/></flags>)"
     R"(<flags id="x64_efer" size="8"><field name="SCE" start="0" end="0"/>)"
     R"(<field name="LME" start="8" end="8"/><field name="LMA" start="10" end="10"/>)"
     R"(<field name="NXE" start="11" end="11"/><field name="SVME" start="12" end="12"/></flags>)"},
    {"org.gnu.gdb.i386.linux", ""},
});

// Each row: name, bits, type, group, feature, [DWARF number (psABI table 3.36), lldb generic, lldb alias].
struct Row {
    std::string_view name;
    std::uint16_t bits;
    std::string_view type;
    std::string_view group;
    Feature feature;
    std::int16_t dwarf = -1;
    std::string_view generic = {};
    std::string_view alt_name = {};
};

// clang-format off
constexpr auto rows = std::to_array<Row>({
    {"rax", 64, "int64", "", core, 0},
    {"rbx", 64, "int64", "", core, 3},
    {"rcx", 64, "int64", "", core, 2, "arg4"},
    {"rdx", 64, "int64", "", core, 1, "arg3"},
    {"rsi", 64, "int64", "", core, 4, "arg2"},
    {"rdi", 64, "int64", "", core, 5, "arg1"},
    {"rbp", 64, "data_ptr", "", core, 6, "fp", "fp"},
    {"rsp", 64, "data_ptr", "", core, 7, "sp", "sp"},
    {"r8", 64, "int64", "", core, 8, "arg5"},
    {"r9", 64, "int64", "", core, 9, "arg6"},
    {"r10", 64, "int64", "", core, 10},
    {"r11", 64, "int64", "", core, 11},
    {"r12", 64, "int64", "", core, 12},
    {"r13", 64, "int64", "", core, 13},
    {"r14", 64, "int64", "", core, 14},
    {"r15", 64, "int64", "", core, 15},
    {"rip", 64, "code_ptr", "", core, 16, "pc", "pc"},
    {"eflags", 32, "i386_eflags", "", core, 49, "flags", "flags"},
    {"cs", 32, "int32", "", core, 51},
    {"ss", 32, "int32", "", core, 52},
    {"ds", 32, "int32", "", core, 53},
    {"es", 32, "int32", "", core, 50},
    {"fs", 32, "int32", "", core, 54},
    {"gs", 32, "int32", "", core, 55},
    {"st0", 80, "i387_ext", "", core, 33},
    {"st1", 80, "i387_ext", "", core, 34},
    {"st2", 80, "i387_ext", "", core, 35},
    {"st3", 80, "i387_ext", "", core, 36},
    {"st4", 80, "i387_ext", "", core, 37},
    {"st5", 80, "i387_ext", "", core, 38},
    {"st6", 80, "i387_ext", "", core, 39},
    {"st7", 80, "i387_ext", "", core, 40},
    {"fctrl", 32, "int", "float", core, 65},
    {"fstat", 32, "int", "float", core, 66},
    {"ftag", 32, "int", "float", core},
    {"fiseg", 32, "int", "float", core},
    {"fioff", 32, "int", "float", core},
    {"foseg", 32, "int", "float", core},
    {"fooff", 32, "int", "float", core},
    {"fop", 32, "int", "float", core},
    {"xmm0", 128, "vec128", "", sse, 17},
    {"xmm1", 128, "vec128", "", sse, 18},
    {"xmm2", 128, "vec128", "", sse, 19},
    {"xmm3", 128, "vec128", "", sse, 20},
    {"xmm4", 128, "vec128", "", sse, 21},
    {"xmm5", 128, "vec128", "", sse, 22},
    {"xmm6", 128, "vec128", "", sse, 23},
    {"xmm7", 128, "vec128", "", sse, 24},
    {"xmm8", 128, "vec128", "", sse, 25},
    {"xmm9", 128, "vec128", "", sse, 26},
    {"xmm10", 128, "vec128", "", sse, 27},
    {"xmm11", 128, "vec128", "", sse, 28},
    {"xmm12", 128, "vec128", "", sse, 29},
    {"xmm13", 128, "vec128", "", sse, 30},
    {"xmm14", 128, "vec128", "", sse, 31},
    {"xmm15", 128, "vec128", "", sse, 32},
    {"mxcsr", 32, "i386_mxcsr", "vector", sse, 64},
    {"ymm0h", 128, "uint128", "", avx},
    {"ymm1h", 128, "uint128", "", avx},
    {"ymm2h", 128, "uint128", "", avx},
    {"ymm3h", 128, "uint128", "", avx},
    {"ymm4h", 128, "uint128", "", avx},
    {"ymm5h", 128, "uint128", "", avx},
    {"ymm6h", 128, "uint128", "", avx},
    {"ymm7h", 128, "uint128", "", avx},
    {"ymm8h", 128, "uint128", "", avx},
    {"ymm9h", 128, "uint128", "", avx},
    {"ymm10h", 128, "uint128", "", avx},
    {"ymm11h", 128, "uint128", "", avx},
    {"ymm12h", 128, "uint128", "", avx},
    {"ymm13h", 128, "uint128", "", avx},
    {"ymm14h", 128, "uint128", "", avx},
    {"ymm15h", 128, "uint128", "", avx},
    {"fs_base", 64, "int", "", segments, 58},
    {"gs_base", 64, "int", "", segments, 59},
    {"k_gs_base", 64, "data_ptr", "system", system},
    {"cr0", 64, "x64_cr0", "system", system},
    {"cr2", 64, "data_ptr", "system", system},
    {"cr3", 64, "int64", "system", system},
    {"cr4", 64, "x64_cr4", "system", system},
    {"cr8", 64, "int64", "system", system},
    {"efer", 64, "x64_efer", "system", system},
    {"ss_base", 64, "int64", "system", system},
    {"ds_base", 64, "int64", "system", system},
    {"es_base", 64, "int64", "system", system},
    {"cs_base", 64, "int64", "system", system},
    {"gdt_base", 64, "data_ptr", "system", system},
    {"idt_base", 64, "data_ptr", "system", system},
    {"tr_base", 64, "data_ptr", "system", system},
    {"tr", 32, "int32", "system", system},
    {"ldt", 32, "int32", "system", system},
});
// clang-format on
static_assert(rows.size() == register_count);

constexpr auto registers = [] {
    std::array<RegisterInfo, rows.size()> infos{};
    std::uint32_t offset = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const Row& row = rows[i];
        infos[i] = {
            row.name,  row.bits,    row.type,    row.group, row.feature, offset, row.feature != system,
            row.dwarf, row.generic, row.alt_name};
        offset += row.bits / 8U;
    }
    return infos;
}();
static_assert(registers[rip].name == "rip" && registers[gs].name == "gs" && registers[fop].name == "fop" &&
              registers[mxcsr].name == "mxcsr" && registers[ymm15h].name == "ymm15h" &&
              registers[gs_base].name == "gs_base" && registers[efer].name == "efer");

constexpr auto process_registers = [] {
    std::array<RegisterInfo, register_count + 1> infos{};
    std::copy(registers.begin(), registers.end(), infos.begin());
    infos[orig_rax] = {"orig_rax", 64,      "int",
                       "",         process, registers.back().offset + registers.back().bits / 8U};
    return infos;
}();

// All general registers: 340 bytes a stop reply, and gdb then needs no `g` to show a frame and its
// arguments. lldb takes only keys of two hex digits, which these are (01 is rbx).
constexpr auto expedited = std::to_array<RegisterNumber>(
    {rip, rsp, rbp, eflags, rax, rbx, rcx, rdx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15});

}  // namespace

const RegisterLayout& layout() {
    static constexpr RegisterLayout result{
        .architecture = "i386:x86-64",
        .features = std::span{features}.first<process>(),
        .registers = registers,
        .size = registers.back().offset + registers.back().bits / 8U,
        .expedited = expedited,
        .pc = rip,
        .sp = rsp,
    };
    return result;
}

const RegisterLayout& process_layout() {
    static constexpr RegisterLayout result{
        .architecture = "i386:x86-64",
        .features = features,
        .registers = process_registers,
        .size = process_registers.back().offset + process_registers.back().bits / 8U,
        .expedited = expedited,
        .pc = rip,
        .sp = rsp,
        .osabi = "GNU/Linux",
    };
    return result;
}

std::optional<PagingMode> paging_mode(const RegisterSet& state) {
    const auto control0 = state.get(cr0);
    const auto control4 = state.get(cr4);
    const auto extended = state.get(efer);
    if (!control0 || !control4 || !extended) return std::nullopt;
    return paging_mode(*control0, *control4, *extended);
}

PagingMode paging_mode(std::uint64_t control0, std::uint64_t control4, std::uint64_t extended) {
    if ((control0 & cr0_pg) == 0) return PagingMode::none;
    if ((control4 & cr4_pae) == 0) return PagingMode::bits32;
    if ((extended & efer_lma) == 0) return PagingMode::pae;
    return (control4 & cr4_la57) != 0 ? PagingMode::levels5 : PagingMode::levels4;
}

}  // namespace exo::x86
