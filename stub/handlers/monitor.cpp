// qRcmd: what a user types after `monitor`.
#include <algorithm>
#include <array>
#include <charconv>

#include "rsp/hex.h"
#include "stub/handlers/handlers.h"
#include "stub/handlers/monitor_commands.h"
#include "stub/log_text.h"
#include "stub/tables.h"

namespace exo::stub::handlers {
namespace {

using Output = Result<std::string>;

struct Command {
    std::string_view name;
    std::string_view help;
    Output (*run)(Session&, std::string_view arguments);
    // Else the line with arguments is the hypervisor's: `info registers`, `info mtree`.
    bool takes_arguments = false;
};

Result<os::OsAwareness*> need_os(Session& session, std::string_view what) {
    CHECK_OK(session.machine.look_once());
    if (session.machine.os() != nullptr) return session.machine.os();
    return fail(Errc::not_found, "no operating system is recognised: no " + std::string{what});
}

Output list_tasks(Session& session, std::string_view /*arguments*/) {
    if (session.machine.os() == nullptr)
        return std::string{"no operating system is recognised; try `monitor info`\n"};
    CHECK_OK(session.machine.look_once());
    return tasks_table(*session.machine.os());
}

Output list_modules(Session& session, std::string_view /*arguments*/) {
    if (session.machine.os() == nullptr)
        return std::string{"no operating system is recognised; try `monitor info`\n"};
    CHECK_OK(session.machine.look_once());
    const auto& found = session.machine.modules();
    std::string text = modules_table(found.modules);
    for (const auto& problem : found.problems) text += problem + "\n";
    return text;
}

Output show_info(Session& session, std::string_view /*arguments*/) {
    if (session.machine.os() != nullptr) CHECK_OK(session.machine.look_once());
    return info_text(session.machine);
}

Output list_problems(Session& session, std::string_view /*arguments*/) {
    std::string text;
    if (session.machine.os() != nullptr) CHECK_OK(session.machine.look_once());
    if (session.machine.os() != nullptr) {
        for (const auto& problem : session.machine.os()->problems()) text += problem + "\n";
    }
    return text.empty() ? "none\n" : text;
}

Output list_breakpoints(Session& session, std::string_view /*arguments*/) {
    static constexpr std::array kinds{"software", "hardware", "write watch", "read watch", "access watch"};
    std::string text;
    for (const auto& [key, state] : session.run_control.breakpoints.all()) {
        if (!state.by_client) continue;
        text += hex(key.address) + "  " + kinds.at(static_cast<std::size_t>(key.kind));
        if (key.process != kernel_pid) text += "  process " + std::to_string(key.process);
        if (!state.armed) {
            text += "  pending: " + state.pending_reason;
        } else if (*state.armed != key.kind) {
            text += std::string{"  as "} + kinds.at(static_cast<std::size_t>(*state.armed));
        }
        text += conditions_text(session.run_control.conditions, key) + "\n";
    }
    text += conditions_text(session);
    return text.empty() ? "none\n" : text;
}

// NAME to its address; an address, in hex with 0x, to the nearest name.
Output show_symbol(Session& session, std::string_view arguments) {
    auto* os = TRY(need_os(session, "symbols"));
    if (arguments.starts_with("0x")) {
        const auto address = rsp::parse_hex_number(arguments.substr(2));
        if (!address) return fail(Errc::bad_request, "malformed address: " + std::string{arguments});
        const auto where = os->locate(VirtualAddress{*address});
        if (!where) return fail(Errc::not_found, "neither the kernel nor a module is at " + hex(*address));
        return place_text(*where) + "\n";
    }
    const auto address = os->find_symbol(arguments);
    if (!address) return fail(Errc::not_found, "no symbol " + std::string{arguments});
    return hex(*address) + "\n";
}

// The last N records; all of them without N.
Output show_log(Session& session, std::string_view arguments) {
    auto* os = TRY(need_os(session, "log"));
    const std::uint64_t wanted =
        arguments.empty() ? ~std::uint64_t{0} : TRY(decimal(arguments, "number of records"));
    const auto log = TRY(os->kernel_log());
    const std::span<const os::LogRecord> records{log.records};
    std::string text = log_text(records.last(std::min<std::uint64_t>(wanted, records.size())));
    for (const auto& line : log.missing) text += "missing: " + line + "\n";
    return text;
}

// By the TID that the guest gives it, or the thread id where that is ours.
Result<const Thread*> thread_of(Session& session, std::string_view tid) {
    if (tid.empty()) return session.general();
    const auto number = TRY(decimal(tid, "TID"));
    if (const Thread* found = session.run_control.find(static_cast<ThreadKey>(number))) return found;
    return fail(Errc::no_such_thread, "no task with the TID " + std::string{tid});
}

Output show_task(Session& session, std::string_view arguments) {
    CHECK_OK(need_os(session, "tasks"));
    const Thread* thread = TRY(thread_of(session, arguments));
    if (thread->task) return hex(thread->task->address) + "\n";
    return fail(Errc::no_such_thread, thread->name + ": which task it runs could not be told");
}

std::string backtrace_of(Session& session, os::OsAwareness& os, const Thread& thread) {
    // Not session.registers(), which keeps to itself why there are none.
    const bool sleeps = !thread.vcpu && thread.task;
    Thread in_kernel = thread;  // a process' too
    in_kernel.pid = kernel_pid;
    const auto registers = sleeps ? os.saved_registers(*thread.task) : session.registers(in_kernel);
    const auto locate = [&os](VirtualAddress address) { return os.locate(address); };
    return backtrace_text(registers ? os.backtrace(*registers) : os::Backtrace{{}, registers.error().message},
                          locate);
}

Output show_backtrace(Session& session, std::string_view arguments) {
    auto* os = TRY(need_os(session, "backtraces"));
    return backtrace_of(session, *os, *TRY(thread_of(session, arguments)));
}

Output show_all_backtraces(Session& session, std::string_view /*arguments*/) {
    auto* os = TRY(need_os(session, "backtraces"));
    std::string text;
    for (const Thread& thread : session.run_control.threads().threads()) {
        text += "thread " + std::to_string(thread.tid) + " \"" + thread.name + "\"";
        if (const auto info = extra_info(thread, os); !info.empty()) text += ": " + info;
        text += "\n" + backtrace_of(session, *os, thread) + "\n";
    }
    return text;
}

// `percpu CPU`: what is added to a per-CPU variable's address. `percpu VARIABLE CPU`: where CPU has its own.
Output show_per_cpu(Session& session, std::string_view arguments) {
    auto* os = TRY(need_os(session, "per-CPU variables"));
    const auto space = arguments.find(' ');
    const auto variable = space == arguments.npos ? std::string_view{} : arguments.substr(0, space);
    const auto cpu = TRY(decimal(arguments.substr(space == arguments.npos ? 0 : space + 1), "CPU"));
    if (cpu >= most_cpus) return fail(Errc::not_found, "no CPU " + std::to_string(cpu));
    std::uint64_t address = 0;
    if (variable.starts_with("0x")) {
        const auto given = rsp::parse_hex_number(variable.substr(2));
        if (!given) return fail(Errc::bad_request, "malformed address: " + std::string{variable});
        address = raw(TRY(os->per_cpu_variable(VirtualAddress{*given})));
    } else if (!variable.empty()) {
        address = raw(TRY(os->per_cpu_variable(variable)));
    }
    return hex(address + TRY(os->per_cpu_offset(static_cast<std::uint32_t>(cpu)))) + "\n";
}

Output help(Session& session, std::string_view arguments);

constexpr auto commands = std::to_array<Command>({
    {"help", "this list", help},
    {"info", "the guest's operating system, KASLR slide and how they were found", show_info},
    {"ps", "the guest's tasks", list_tasks},
    {"lsmod", "the kernel's modules: bytes, users, address", list_modules},
    {"symbol", "address of a kernel symbol, or symbol at an address: `symbol schedule`, `symbol 0xffff…`",
     show_symbol, true},
    {"dmesg", "the kernel's log; the last N records: `dmesg N`", show_log, true},
    {"bt", "who called whom in the kernel, of the selected task or `bt TID`", show_backtrace, true},
    {"bt-all", "the same of every task", show_all_backtraces},
    {"task", "address of the task_struct of the selected task, or `task TID`", show_task, true},
    {"percpu",
     "address of a CPU's own of a per-CPU variable: `percpu runqueues 1`; what is added: `percpu 1`",
     show_per_cpu, true},
    {"breakpoints", "what is inserted, and as what; what is pending and why", list_breakpoints},
    {"filter", "which threads a breakpoint is for: `filter ADDRESS tid N | pid N | comm NAME | off`",
     set_filter, true},
    {"vcpus", "what each vCPU does: mode, paging, privilege, interrupts, place, task", show_vcpus},
    {"phys", "guest-physical memory: `phys 0x7c00`, `phys 0x7c00 512`", show_physical, true},
    {"msr", "a model-specific register of the selected thread's vCPU: `msr lstar`, `msr 0xc0000082`",
     show_msr, true},
    {"nmi", "a non-maskable interrupt, as by the machine's button", send_nmi},
    {"reset", "the reset button: the guest begins again at its reset vector", reset_machine},
    {"problems", "what in the guest's memory could not be read or trusted", list_problems},
});

Output help(Session& session, std::string_view /*arguments*/) {
    std::string text;
    for (const Command& command : commands) {
        text.append(command.name).append(14 - command.name.size(), ' ').append(command.help).append("\n");
    }
    if (session.machine.target().console() != nullptr) {
        text += "Anything else goes to the hypervisor's own monitor.\n";
    } else if (const auto elsewhere = session.machine.target().console_elsewhere(); !elsewhere.empty()) {
        text += elsewhere + "\n";
    }
    return text;
}

Output run(Session& session, std::string_view line) {
    const std::string_view name = line.substr(0, line.find(' '));
    const std::string_view arguments = line.size() > name.size() ? line.substr(name.size() + 1) : "";
    const auto* const command = std::ranges::find(commands, name, &Command::name);
    const bool ours = command != commands.end() && (command->takes_arguments || arguments.empty());
    if (ours) return command->run(session, arguments);
    if (auto* console = session.machine.target().console(); console != nullptr && !line.empty()) {
        auto output = console->command(std::string{line});
        session.run_control.forget_threads();  // it may have changed anything
        return output;
    }
    return "unknown command: " + std::string{line} + "\n" + TRY(help(session, {}));
}

}  // namespace

Result<std::uint64_t> decimal(std::string_view text, std::string_view what) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc{} && end == text.data() + text.size()) return value;
    return fail(Errc::bad_request, "not a " + std::string{what} + ": " + std::string{text});
}

// Output goes in O packets, since one reply is limited to a packet; then OK. Errors are output too: gdb shows
// of an error reply here only its number.
Result<Reply> monitor(Session& session, std::string_view arguments) {
    const auto line = rsp::text_from_hex(arguments);
    if (!line) return fail(Errc::bad_request, "malformed command");
    const auto output = run(session, *line);
    std::string shown = output ? *output : output.error().message + "\n";
    // In non-stop mode there is no other time for what breakpoints print: see docs/non-stop.md.
    if (session.non_stop.on()) shown = session.run_control.conditions.take_output() + shown;
    Reply reply = ok();
    reply.before = console_output(shown, session.options.packet_size);
    return reply;
}

}  // namespace exo::stub::handlers
