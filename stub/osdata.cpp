#include "stub/osdata.h"

#include <tuple>

#include <spdlog/spdlog.h>

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
std::string osdata_tasks(const ThreadMap& map, bool processes) {
    std::string xml = osdata_begin(processes ? "processes" : "threads");
    for (const Thread& thread : map.threads()) {
        if (!thread.task || thread.task->idle) continue;
        const os::Task& task = *thread.task;
        if (processes && task.tid != task.tgid) continue;
        xml += "<item>";
        append_column(xml, "pid", std::to_string(task.tgid));
        if (processes) append_column(xml, "user", "");
        append_column(xml, "command", shown_name(task));
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
