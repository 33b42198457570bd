// `monitor` about the machine, whatever runs in it.
#include <algorithm>
#include <array>

#include "backends/arch/x86_64.h"
#include "rsp/hex.h"
#include "stub/handlers/monitor_commands.h"
#include "stub/tables.h"

namespace exo::stub::handlers {
namespace {

using Text = Result<std::string>;

constexpr std::uint64_t shown_bytes = 64;
constexpr std::uint64_t most_shown_bytes = 65536;
constexpr std::size_t line_bytes = 16;

// Names of Intel SDM vol. 4 and AMD APM vol. 2 appendix A, as arch/x86/include/asm/msr-index.h has them.
struct MsrName {
    std::string_view name;
    std::uint32_t number;
    RegisterNumber known_as = x86::register_count;  // the register that has it
};
constexpr auto msr_names = std::to_array<MsrName>({
    {"efer", 0xc0000080, x86::efer},
    {"fs_base", 0xc0000100, x86::fs_base},
    {"gs_base", 0xc0000101, x86::gs_base},
    {"kernel_gs_base", 0xc0000102, x86::k_gs_base},
    {"star", 0xc0000081},
    {"lstar", 0xc0000082},
    {"cstar", 0xc0000083},
    {"sfmask", 0xc0000084},
    {"tsc_aux", 0xc0000103},
    {"tsc", 0x10},
    {"apic_base", 0x1b},
    {"feature_control", 0x3a},
    {"spec_ctrl", 0x48},
    {"sysenter_cs", 0x174},
    {"sysenter_esp", 0x175},
    {"sysenter_eip", 0x176},
    {"misc_enable", 0x1a0},
    {"pat", 0x277},
    {"mtrr_def_type", 0x2ff},
    {"xss", 0xda0},
    {"tsc_deadline", 0x6e0},
});

// In C's notation.
Result<std::uint64_t> number_of(std::string_view text, std::string_view what) {
    if (!text.starts_with("0x")) return decimal(text, what);
    if (const auto number = rsp::parse_hex_number(text.substr(2))) return *number;
    return fail(Errc::bad_request, "not a " + std::string{what} + ": " + std::string{text});
}

std::string_view paging_text(std::optional<x86::PagingMode> mode) {
    if (!mode) return "paging unknown";
    switch (*mode) {
        case x86::PagingMode::none: return "no paging";
        case x86::PagingMode::bits32: return "32-bit paging";
        case x86::PagingMode::pae: return "PAE paging";
        case x86::PagingMode::levels4: return "4-level paging";
        case x86::PagingMode::levels5: return "5-level paging";
    }
    return "paging unknown";
}

bool is_set(const RegisterSet& registers, RegisterNumber number, std::uint64_t bit) {
    return (registers.get(number).value_or(0) & bit) != 0;
}

// How it translates a logical address to a linear one (Intel SDM vol. 3A, 3.4 and 20.1).
enum class Mode : std::uint8_t { real, virtual_8086, protected_mode, long_mode };

Mode mode_of(const RegisterSet& registers) {
    if (!is_set(registers, x86::cr0, x86::cr0_pe)) return Mode::real;
    if (is_set(registers, x86::efer, x86::efer_lma)) return Mode::long_mode;
    return is_set(registers, x86::eflags, x86::eflags_vm) ? Mode::virtual_8086 : Mode::protected_mode;
}

std::string_view mode_text(Mode mode) {
    static constexpr std::array names{"real mode", "virtual-8086 mode", "protected mode", "long mode"};
    return names.at(static_cast<std::size_t>(mode));
}

std::uint64_t privilege(const RegisterSet& registers, Mode mode) {
    if (mode == Mode::real) return 0;
    return mode == Mode::virtual_8086 ? 3 : registers.get(x86::cs).value_or(0) & 3U;
}

std::string hex_digits(std::uint64_t value, std::size_t width) {
    std::string digits = hex(value).substr(2);
    if (digits.size() < width) digits.insert(0, width - digits.size(), '0');
    return digits;
}

// Where it executes. CS has a base outside 64-bit mode, and $pc does not have it in it.
std::string place_of(Session& session, const RegisterSet& registers, bool bits64) {
    const auto pc = registers.get(x86::rip);
    if (!pc) return "rip unknown";
    if (!bits64) {
        const auto base = registers.get(x86::cs_base).value_or(0);
        return "cs:ip " + hex_digits(registers.get(x86::cs).value_or(0), 4) + ":" + hex_digits(*pc, 4) +
               ", at " + hex((base + *pc) & 0xffffffffU);
    }
    std::string text = "rip " + hex(*pc);
    auto* os = session.machine.os();
    if (const auto where = os != nullptr ? os->locate(VirtualAddress{*pc}) : std::nullopt)
        text += " " + place_text(*where);
    return text;
}

Result<std::string> vcpu_text(Session& session, VcpuId vcpu) {
    const RegisterSet& registers = *TRY(session.machine.all_vcpu_registers(vcpu));
    const auto state = TRY(session.machine.target().vcpu_state(vcpu));
    const Mode mode = mode_of(registers);
    const auto bits = state.code_bits.value_or(mode == Mode::long_mode ? 64 : mode == Mode::real ? 16 : 32);
    std::string text = "vCPU " + std::to_string(vcpu) + ": " + std::to_string(bits) + "-bit code, ";
    text.append(mode_text(mode)).append(", ").append(paging_text(x86::paging_mode(registers)));
    text += ", privilege level " + std::to_string(privilege(registers, mode)) + ", interrupts " +
            (is_set(registers, x86::eflags, x86::eflags_if) ? "on" : "off");
    if (state.halted.value_or(false)) text += ", halted";
    if (state.smm.value_or(false)) text += ", in system management mode";
    text += "\n  " + place_of(session, registers, bits == 64) + "\n";
    if (const Thread* thread = session.run_control.threads().on_vcpu(vcpu); thread != nullptr && thread->task)
        text += "  " + shown_name(*thread->task) + ", thread " + std::to_string(thread->tid) + "\n";
    return text;
}

Result<void> needs_a_stop(Session& session) {
    if (!session.running) return {};
    return fail(Errc::busy, "the guest runs: stop it first");
}

Result<Controls*> controls_of(Session& session) {
    if (auto* controls = session.machine.target().controls()) return controls;
    return fail(Errc::unsupported, "this target has no such button");
}

std::string dump_line(std::uint64_t address, ConstBytes bytes) {
    std::string line = hex(address) + ":", letters;
    for (const std::byte byte : bytes) {
        const auto value = std::to_integer<unsigned char>(byte);
        line += " " + hex_digits(value, 2);
        letters += value >= ' ' && value <= '~' ? static_cast<char>(value) : '.';
    }
    return pad(std::move(line), hex(address).size() + 1 + 3 * line_bytes) + "  " + letters + "\n";
}

}  // namespace

Text show_vcpus(Session& session, std::string_view /*arguments*/) {
    CHECK_OK(needs_a_stop(session));
    CHECK_OK(session.machine.look_once());
    std::string text;
    for (VcpuId vcpu = 0; vcpu < session.machine.target().vcpu_count(); ++vcpu)
        text += TRY(vcpu_text(session, vcpu));
    return text;
}

// As much as there is: what is behind it is said.
Text show_physical(Session& session, std::string_view arguments) {
    const auto space = arguments.find(' ');
    auto address = TRY(number_of(arguments.substr(0, space), "physical address"));
    auto left = space == arguments.npos ? shown_bytes
                                        : TRY(number_of(arguments.substr(space + 1), "number of bytes"));
    if (left > most_shown_bytes)
        return fail(Errc::bad_request, "at most " + std::to_string(most_shown_bytes) + " bytes at a time");
    std::string text;
    std::array<std::byte, line_bytes> line{};
    while (left > 0) {
        const auto wanted = MutableBytes{line}.first(std::min<std::size_t>(left, line_bytes));
        const auto got = session.machine.memory().read_some(PhysicalAddress{address}, wanted);
        if (!got) return text + got.error().message + "\n";
        if (*got == 0) return text + hex(address) + ": no memory\n";
        text += dump_line(address, wanted.first(*got));
        left -= *got;
        if (address + *got < address) break;
        address += *got;
    }
    return text;
}

Text show_msr(Session& session, std::string_view arguments) {
    CHECK_OK(needs_a_stop(session));
    if (arguments.empty()) {
        std::string text = "which one? its number, or one of:";
        for (const auto& row : msr_names) text.append(" ").append(row.name);
        return text + "\n";
    }
    const auto* row = std::ranges::find(msr_names, arguments, &MsrName::name);
    const auto number =
        row != msr_names.end() ? row->number : TRY(number_of(arguments, "number or known name of an MSR"));
    if (number > UINT32_MAX) return fail(Errc::bad_request, "an MSR's number has 32 bits");
    if (row == msr_names.end()) row = std::ranges::find(msr_names, number, &MsrName::number);
    const Thread& thread = *TRY(session.general());
    if (!thread.vcpu)
        return fail(Errc::unsupported, "thread " + std::to_string(thread.tid) +
                                           " runs on no vCPU; select one that does (`monitor vcpus`)");
    if (row != msr_names.end() && row->known_as != x86::register_count) {
        const auto value = TRY(session.machine.all_vcpu_registers(*thread.vcpu))->get(row->known_as);
        if (value) return hex(*value) + "\n";
    }
    const auto value =
        TRY(session.machine.target().read_msr(*thread.vcpu, static_cast<std::uint32_t>(number)));
    return hex(value) + "\n";
}

Text send_nmi(Session& session, std::string_view /*arguments*/) {
    CHECK_OK(TRY(controls_of(session))->nmi());
    return std::string{"sent: the guest takes it when it runs\n"};
}

// What was known of the guest is of before. A debugger has its own caches, of which nothing in the protocol
// tells it.
Text reset_machine(Session& session, std::string_view /*arguments*/) {
    CHECK_OK(TRY(controls_of(session))->reset());
    if (session.running) return std::string{"reset: the guest runs from its reset vector on\n"};
    session.machine.forget();
    session.threads_replaced = true;
    session.general_thread.reset();
    session.continue_thread.reset();
    session.held_stop.reset();
    session.stop_at_first_vcpu();
    return std::string{
        "reset: the guest stands at its reset vector, and its vCPUs are its threads. gdb learns of that when "
        "it\n"
        "resumes, or by: maintenance flush register-cache, info threads, thread NUMBER\n"};
}

}  // namespace exo::stub::handlers
