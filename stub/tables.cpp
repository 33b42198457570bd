#include "stub/tables.h"

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <span>
#include <tuple>
#include <vector>

#include "backends/arch/x86_64.h"

namespace exo::stub {
namespace {

namespace json = boost::json;

std::vector<const os::Task*> sorted(const os::OsAwareness& os) {
    std::vector<const os::Task*> tasks;
    for (const os::Task& task : os.tasks()) tasks.push_back(&task);
    std::ranges::stable_sort(
        tasks, {}, [](const os::Task* t) { return std::tuple{t->idle, t->idle ? t->cpu : t->tgid, t->tid}; });
    return tasks;
}

// "4" and "true" as JSON's own, the rest as text; addresses stay hex strings, since JSON numbers lose bits.
json::value value_of(std::string_view text) {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error == std::errc{} && end == text.data() + text.size()) return number;
    return json::string{text};
}

json::array lines(std::span<const std::string> texts) {
    json::array array;
    for (const auto& text : texts) array.push_back(json::string{text});
    return array;
}

std::string pad_left(const std::string& text, std::size_t width) {
    return text.size() < width ? std::string(width - text.size(), ' ') + text : text;
}

}  // namespace

std::string shown_name(const os::Task& task) {
    return task.kernel_thread ? "[" + task.comm + "]" : task.comm;
}

std::string pad(std::string text, std::size_t width) {
    if (text.size() < width) text.append(width - text.size(), ' ');
    return text;
}

std::string tasks_table(const os::OsAwareness& os) {
    std::string text = "    TID    TGID  S  CPU  COMM\n";
    for (const os::Task* task : sorted(os)) {
        text += pad_left(std::to_string(task->tid), 7) + " " + pad_left(std::to_string(task->tgid), 7) + "  ";
        text += task->state;
        text += task->vcpu ? '*' : ' ';
        text += pad_left(std::to_string(task->cpu), 4) + "  " + shown_name(*task);
        if (task->tid != task->tgid) text += " (of " + task->process + ")";
        text += "\n";
    }
    for (const auto& problem : os.problems()) text += "problem: " + problem + "\n";
    return text;
}

std::string modules_table(std::span<const os::Module> modules) {
    std::string text = pad("MODULE", 24) + "      SIZE  USERS  ADDRESS\n";
    for (const auto& module : modules) {
        text += pad(module.name, 24) + pad_left(std::to_string(module.size), 10) +
                pad_left(std::to_string(module.users), 7) + "  " + hex(module.memory.front().start);
        if (module.initialising) text += "  in its init function";
        text += "\n";
    }
    return text;
}

std::string info_text(Machine& machine) {
    std::string text = pad("target", 16) + machine.target().description() + "\n" + pad("vcpus", 16) +
                       std::to_string(machine.target().vcpu_count()) + "\n";
    for (const auto& remark : machine.target().remarks()) text += "remark: " + remark + "\n";
    if (const auto* os = machine.os()) {
        for (const os::Finding& finding : os->findings()) {
            const bool lacks = finding.value == "none" || finding.value == "unknown";
            text += pad(finding.what, 16) + pad(finding.value, 36) + (lacks ? "  since: " : "  by ") +
                    finding.how + "\n";
        }
        for (const auto& problem : os->problems()) text += "problem: " + problem + "\n";
        return text;
    }
    text += "no operating system was recognised; what was tried:\n";
    for (const auto& step : machine.probe_failure().steps) text += "  " + step + "\n";
    return text;
}

std::string place_text(const os::Place& place) {
    std::string text = place.symbol + "+" + hex(place.offset);
    if (!place.module.empty()) text += " [" + place.module + "]";
    return text;
}

std::string backtrace_text(const os::Backtrace& trace, const Locate& locate) {
    std::string text;
    std::size_t number = 0;
    for (const os::StackFrame& frame : trace.frames) {
        text += pad("#" + std::to_string(number++), 4) + hex(frame.pc);
        // A call that does not return may be its function's last instruction.
        const std::uint64_t before = frame.interrupted || raw(frame.pc) == 0 ? 0 : 1;
        auto where = locate(VirtualAddress{raw(frame.pc) - before});
        if (where) {
            where->offset += before;
            text += " " + place_text(*where);
        }
        const bool in_kernel = x86::in_upper_half(raw(frame.pc));
        if (!in_kernel && number == 1 && raw(frame.pc) != 0) text += " in user mode";
        text += "\n";
    }
    if (!trace.broken.empty()) text += "    broken off: " + trace.broken + "\n";
    return text;
}

std::string tasks_json(const os::OsAwareness& os) {
    json::array tasks;
    for (const os::Task* task : sorted(os)) {
        json::object object{{"tid", task->tid},
                            {"tgid", task->tgid},
                            {"comm", task->comm},
                            {"process", task->process},
                            {"state", std::string{task->state}},
                            {"cpu", task->cpu},
                            {"idle", task->idle},
                            {"kernel_thread", task->kernel_thread},
                            {"task_struct", hex(task->address)}};
        if (task->vcpu) object["vcpu"] = *task->vcpu;
        tasks.push_back(std::move(object));
    }
    return json::serialize(json::object{{"tasks", std::move(tasks)}, {"problems", lines(os.problems())}}) +
           "\n";
}

std::string info_json(Machine& machine) {
    json::object object{{"target", machine.target().description()}, {"vcpus", machine.target().vcpu_count()}};
    json::object found_by{{"vcpus", "the hypervisor"}};
    if (const auto remarks = machine.target().remarks(); !remarks.empty()) object["remarks"] = lines(remarks);
    json::array problems;
    if (const auto* os = machine.os()) {
        for (const os::Finding& finding : os->findings()) {
            object[finding.what] = value_of(finding.value);
            found_by[finding.what] = finding.how;
        }
        problems = lines(os->problems());
    } else {
        object["os"] = nullptr;
        problems = lines(machine.probe_failure().steps);
    }
    object["found_by"] = std::move(found_by);
    object["problems"] = std::move(problems);
    return json::serialize(object) + "\n";
}

}  // namespace exo::stub
