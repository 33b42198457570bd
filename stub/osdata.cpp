#include "stub/osdata.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <tuple>

#include <spdlog/spdlog.h>

#include "os-awareness/elf/symbol_sections.h"
#include "rsp/stop_reply.h"
#include "stub/guest_files.h"
#include "stub/tables.h"

namespace exo::stub {
namespace {

std::string osdata_begin(std::string_view type) {
    return "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"osdata.dtd\"><osdata type=\"" +
           std::string{type} + "\">";
}

void append_column(std::string& xml, std::string_view name, std::string_view value) {
    xml.append("<column name=\"").append(name).append("\">");
    rsp::append_xml(xml, value);
    xml += "</column>";
}

using Accounts = std::map<std::uint32_t, std::string, std::less<>>;  // names by user id

std::string one_line(std::string text) {
    while (text.ends_with('\0')) text.pop_back();
    std::ranges::transform(text, text.begin(), [](char c) { return c == '\0' ? ' ' : os::printable(c); });
    return text;
}

// Of the guest's /etc/passwd, as far as it is in memory; passwd(5).
Accounts accounts_of(os::Processes& processes, const os::Task& first) {
    constexpr std::size_t most = std::size_t{1} << 20U;
    Accounts accounts;
    const auto file = processes.find_file(first, "/etc/passwd");
    const auto size = file ? processes.file_size(*file) : fail(file.error());
    std::string text(size ? std::min<std::uint64_t>(*size, most) : 0, '\0');
    const auto read = file ? processes.read_file(*file, 0, std::as_writable_bytes(std::span{text}))
                           : Result<std::size_t>{0};
    text.resize(read.value_or(0));
    for (std::string_view rest = text; !rest.empty();) {
        const std::string_view line = rest.substr(0, rest.find('\n'));
        rest.remove_prefix(std::min(line.size() + 1, rest.size()));
        const auto name = line.substr(0, line.find(':'));
        const auto id = line.substr(std::min(line.find(':', name.size() + 1), line.size()));
        std::uint32_t number = 0;
        if (id.starts_with(':') &&
            std::from_chars(id.data() + 1, id.data() + id.size(), number).ec == std::errc{})
            accounts.try_emplace(number, one_line(std::string{name}));
    }
    return accounts;
}

// The owner of /proc/PID, as gdbserver has it (gdb/nat/linux-osdata.c, get_process_owner()): the effective
// user.
std::string user_of(os::Processes& processes, const os::Task& task, const Accounts& accounts) {
    const auto status = processes.proc_file(task, "status");
    const auto effective = status ? status_value(*status, "Uid", 1) : std::string_view{};
    std::uint32_t number = 0;
    if (std::from_chars(effective.data(), effective.data() + effective.size(), number).ec != std::errc{})
        return {};
    const auto account = accounts.find(number);
    return account != accounts.end() ? account->second : std::to_string(number);
}

// With its arguments, where the guest's memory has them.
std::string command_of(os::Processes& processes, const os::Task& task) {
    if (task.kernel_thread) return shown_name(task);
    const auto command = processes.proc_file(task, "cmdline");
    auto text = command ? one_line(*command) : std::string{};
    return text.empty() ? shown_name(task) : text;
}

}  // namespace

std::string osdata_types() {
    std::string xml = osdata_begin("types");
    for (const auto& [type, description, title] :
         {std::tuple{"processes", "Processes of the guest", "Processes"},
          std::tuple{"threads", "Threads of the guest", "Threads"},
          std::tuple{"files", "Files that the guest's processes have open", "Files"},
          std::tuple{"modules", "Modules of the guest's kernel", "Modules"}}) {
        xml += "<item>";
        append_column(xml, "Type", type);
        append_column(xml, "Description", description);
        append_column(xml, "Title", title);
        xml += "</item>";
    }
    return xml += "</osdata>";
}

// The columns that IDEs' process pickers look for.
std::string osdata_tasks(Machine& machine, const ThreadMap& map, bool processes) {
    std::string xml = osdata_begin(processes ? "processes" : "threads");
    auto* const teller = processes && machine.os() != nullptr ? machine.os()->processes() : nullptr;
    const auto first = teller != nullptr ? guest_task(machine, 1) : fail(Errc::not_found, "");
    const Accounts accounts = first ? accounts_of(*teller, *first) : Accounts{};
    for (const Thread& thread : map.threads()) {
        if (!thread.task || thread.task->idle) continue;
        const os::Task& task = *thread.task;
        if (processes && task.tid != task.tgid) continue;
        xml += "<item>";
        append_column(xml, "pid", std::to_string(task.tgid));
        if (processes) append_column(xml, "user", teller != nullptr ? user_of(*teller, task, accounts) : "");
        append_column(xml, "command", teller != nullptr ? command_of(*teller, task) : shown_name(task));
        if (!processes) append_column(xml, "tid", std::to_string(task.tid));
        append_column(xml, processes ? "cores" : "core", std::to_string(task.cpu));
        xml += "</item>";
    }
    return xml += "</osdata>";
}

std::string osdata_files(Machine& machine) {
    std::string xml = osdata_begin("files");
    const auto processes = guest_processes(machine);
    if (!processes) spdlog::info("info os files: {}", processes.error().message);
    for (const os::Task& task : processes ? machine.os()->tasks() : std::span<const os::Task>{}) {
        if (task.idle || task.kernel_thread || task.tid != task.tgid) continue;
        const auto open = (*processes)->open_files(task);
        if (!open) spdlog::warn("files of process {}: {}", task.tid, open.error().message);
        if (!open) continue;
        for (const auto& file : *open) {
            xml += "<item>";
            append_column(xml, "pid", std::to_string(task.tgid));
            append_column(xml, "command", task.comm);
            append_column(xml, "file descriptor", std::to_string(file.number));
            append_column(xml, "name", file.name);
            xml += "</item>";
        }
    }
    return xml += "</osdata>";
}

std::string osdata_modules(Machine& machine) {
    std::string xml = osdata_begin("modules");
    const auto& found = machine.modules();
    for (const auto& problem : found.problems) spdlog::warn("info os modules: {}", problem);
    for (const auto& module : found.modules) {
        xml += "<item>";
        append_column(xml, "name", module.name);
        append_column(xml, "size", std::to_string(module.size));
        append_column(xml, "num uses", std::to_string(module.users));
        append_column(xml, "status", module.initialising ? "Loading" : "Live");
        append_column(xml, "address", hex(module.memory.front().start));
        xml += "</item>";
    }
    return xml += "</osdata>";
}

}  // namespace exo::stub
