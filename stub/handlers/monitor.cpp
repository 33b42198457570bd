// qRcmd: what a user types after `monitor`.
#include <algorithm>
#include <array>

#include "rsp/hex.h"
#include "stub/handlers/handlers.h"
#include "stub/tables.h"

namespace exo::stub::handlers {
namespace {

using Output = Result<std::string>;

struct Command {
    std::string_view name;
    std::string_view help;
    Output (*run)(Session&, std::string_view arguments);
};

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

Output show_info(Session& session, std::string_view /*arguments*/) { return info_text(session.machine); }

Output list_problems(Session& session, std::string_view /*arguments*/) {
    std::string text;
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
        if (!state.armed) {
            text += "  pending: " + state.pending_reason;
        } else if (*state.armed != key.kind) {
            text += std::string{"  as "} + kinds.at(static_cast<std::size_t>(*state.armed));
        }
        text += "\n";
    }
    return text.empty() ? "none\n" : text;
}

// NAME to its address; an address, in hex with 0x, to the nearest name.
Output show_symbol(Session& session, std::string_view arguments) {
    if (session.machine.os() == nullptr)
        return fail(Errc::not_found, "no operating system is recognised: no symbols");
    const os::SymbolTable& symbols = session.machine.os()->symbols();
    if (arguments.starts_with("0x")) {
        const auto address = rsp::parse_hex_number(arguments.substr(2));
        if (!address) return fail(Errc::bad_request, "malformed address: " + std::string{arguments});
        const auto where = symbols.locate(VirtualAddress{*address});
        if (!where) return fail(Errc::not_found, "no symbol at or below " + hex(*address));
        return std::string{where->name} + "+" + hex(where->offset) + "\n";
    }
    const auto address = symbols.find(arguments);
    if (!address) return fail(Errc::not_found, "no symbol " + std::string{arguments});
    return hex(*address) + "\n";
}

Output help(Session& session, std::string_view arguments);

constexpr auto commands = std::to_array<Command>({
    {"help", "this list", help},
    {"info", "the guest's operating system, KASLR slide and how they were found", show_info},
    {"ps", "the guest's tasks", list_tasks},
    {"lsmod", "the kernel's modules: bytes, users, address", list_modules},
    {"symbol", "address of a kernel symbol, or symbol at an address: `symbol schedule`, `symbol 0xffff…`",
     show_symbol},
    {"breakpoints", "what is inserted, and as what; what is pending and why", list_breakpoints},
    {"problems", "what in the guest's memory could not be read or trusted", list_problems},
});

Output help(Session& session, std::string_view /*arguments*/) {
    std::string text;
    for (const Command& command : commands) {
        text.append(command.name).append(14 - command.name.size(), ' ').append(command.help).append("\n");
    }
    if (session.machine.target().console() != nullptr) {
        text += "Anything else goes to the hypervisor's own monitor.\n";
    }
    return text;
}

Output run(Session& session, std::string_view line) {
    const std::string_view name = line.substr(0, line.find(' '));
    const std::string_view arguments = line.size() > name.size() ? line.substr(name.size() + 1) : "";
    const auto* const command = std::ranges::find(commands, name, &Command::name);
    // `info registers`, `info mtree`: the hypervisor's; `info` alone is ours.
    const bool ours = command != commands.end() && (command->name == "symbol" || arguments.empty());
    if (ours) return command->run(session, arguments);
    if (auto* console = session.machine.target().console(); console != nullptr && !line.empty()) {
        auto output = console->command(std::string{line});
        session.run_control.forget_threads();  // it may have changed anything
        return output;
    }
    return "unknown command: " + std::string{line} + "\n" + TRY(help(session, {}));
}

}  // namespace

// Output goes in O packets, since one reply is limited to a packet; then OK. Errors are output too: gdb shows
// of an error reply here only its number.
Result<Reply> monitor(Session& session, std::string_view arguments) {
    const auto line = rsp::text_from_hex(arguments);
    if (!line) return fail(Errc::bad_request, "malformed command");
    const auto output = run(session, *line);
    const std::string shown = output ? *output : output.error().message + "\n";
    Reply reply = ok();
    const std::size_t piece = session.options.packet_size / 4;
    for (std::size_t at = 0; at < shown.size(); at += piece) {
        reply.before.push_back("O" + rsp::to_hex(std::string_view{shown}.substr(at, piece)));
    }
    return reply;
}

}  // namespace exo::stub::handlers
