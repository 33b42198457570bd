#include "stub/guest_files.h"

#include <algorithm>
#include <charconv>
#include <optional>

namespace exo::stub {
namespace {

constexpr std::uint32_t first_process = 1;

// What a name below /proc means: "/proc/70/maps", "/proc/70/task/71/comm".
struct ProcName {
    std::uint32_t tid = 0;
    std::optional<std::uint32_t> process;  // whose thread `tid` has to be
    std::string_view file;
};

std::optional<std::uint32_t> take_number(std::string_view& rest) {
    const auto end = rest.find('/');
    if (end == rest.npos) return std::nullopt;
    const std::string digits{rest.substr(0, end)};
    const char* const last = digits.data() + digits.size();
    std::uint32_t value = 0;
    const auto [after, error] = std::from_chars(digits.data(), last, value);
    if (error != std::errc{} || after != last) return std::nullopt;
    rest.remove_prefix(end + 1);
    return value;
}

std::optional<ProcName> parse_proc(std::string_view name) {
    constexpr std::string_view folder = "/proc/", threads = "task/";
    if (!name.starts_with(folder)) return std::nullopt;
    name.remove_prefix(folder.size());
    const auto pid = take_number(name);
    if (!pid) return std::nullopt;
    if (!name.starts_with(threads)) return ProcName{.tid = *pid, .process = {}, .file = name};
    name.remove_prefix(threads.size());
    const auto tid = take_number(name);
    if (!tid) return std::nullopt;
    return ProcName{.tid = *tid, .process = pid, .file = name};
}

Result<os::Task> task_of(Machine& machine, const ProcName& name) {
    auto task = TRY(guest_task(machine, name.tid));
    if (name.process && task.tgid != *name.process) {
        return fail(Errc::not_found, "process " + std::to_string(*name.process) + " has no thread " +
                                         std::to_string(name.tid));
    }
    return task;
}

Result<OpenFile> open_text(const std::string& path, const std::string& text) {
    auto content = TRY(MemoryFile::create("exogdb-proc"));
    CHECK_OK(content.append(std::as_bytes(std::span{text})));
    return OpenFile{std::make_shared<const PublishedFile>(PublishedFile{path, std::move(content)})};
}

// Without a look at the guest, which may run.
Result<os::Processes*> processes_of(Machine& machine, const OpenFile& file) {
    auto* const os = machine.os();
    if (os == nullptr || os->processes() == nullptr || file.generation != machine.os_generation()) {
        return fail(Errc::not_found, "the kernel that the file was opened of is gone");
    }
    return os->processes();
}

}  // namespace

Result<os::Processes*> guest_processes(Machine& machine) {
    CHECK_OK(machine.look_for_os_once());
    auto* const os = machine.os();
    auto* const processes = os == nullptr ? nullptr : os->processes();
    if (processes == nullptr) {
        return fail(Errc::not_found, os == nullptr ? "no operating system is recognised"
                                                   : "this kernel does not tell of its processes: no BTF");
    }
    return processes;
}

Result<os::Task> guest_task(Machine& machine, std::uint32_t tid) {
    CHECK_OK(machine.look_once());
    const auto* const os = machine.os();
    if (os != nullptr) {
        const auto tasks = os->tasks();
        const auto it =
            std::ranges::find_if(tasks, [&](const os::Task& task) { return task.tid == tid && !task.idle; });
        if (it != tasks.end()) return *it;
    }
    return fail(Errc::no_such_thread, "the guest has no task " + std::to_string(tid));
}

Result<OpenFile> open_guest_file(Machine& machine, std::uint32_t pid, std::string_view name) {
    auto& processes = *TRY(guest_processes(machine));
    const auto opened = [&](Result<os::FileId> file) -> Result<OpenFile> {
        return OpenFile{TRY(std::move(file)), machine.os_generation()};
    };
    if (const auto proc = parse_proc(name)) {
        const auto task = TRY(task_of(machine, *proc));
        if (proc->file == "exe") return opened(processes.executable(task));
        if (proc->file == "mem") return OpenFile{task, machine.os_generation()};
        return open_text(std::string{name}, TRY(processes.proc_file(task, proc->file)));
    }
    const auto task = TRY(guest_task(machine, pid == 0 ? first_process : pid));
    return opened(processes.find_file(task, name));
}

Result<std::string> read_guest_link(Machine& machine, std::uint32_t pid, std::string_view name) {
    auto& processes = *TRY(guest_processes(machine));
    if (const auto proc = parse_proc(name)) {
        return processes.proc_link(TRY(task_of(machine, *proc)), proc->file);
    }
    CHECK_OK(open_guest_file(machine, pid, name));
    return fail(Errc::bad_request, std::string{name} + " is no link");
}

Result<std::size_t> read_open_file(Machine& machine, const OpenFile& file, std::uint64_t offset,
                                   MutableBytes out) {
    if (file.published) return file.published->content.read(offset, out);
    auto& processes = *TRY(processes_of(machine, file));
    if (file.memory)
        return TRY(processes.readable_space(*file.memory))->read_some(VirtualAddress{offset}, out);
    return processes.read_file(file.guest, offset, out);
}

Result<std::uint64_t> size_of_open_file(Machine& machine, const OpenFile& file) {
    if (file.published) return file.published->content.size();
    auto& processes = *TRY(processes_of(machine, file));
    if (file.memory) return std::uint64_t{0};  // as that file of Linux has it
    return processes.file_size(file.guest);
}

Result<std::string> auxv_of(Machine& machine, const os::Task& task) {
    return TRY(guest_processes(machine))->proc_file(task, "auxv");
}

std::string_view status_value(std::string_view status, std::string_view field, std::size_t index) {
    const auto at = status.find("\n" + std::string{field} + ":\t");
    if (at == status.npos) return {};
    status.remove_prefix(at + field.size() + 3);
    auto values = status.substr(0, status.find('\n'));
    for (; index > 0; --index) {
        const auto tab = values.find('\t');
        if (tab == values.npos) return {};
        values.remove_prefix(tab + 1);
    }
    return values.substr(0, values.find('\t'));
}

}  // namespace exo::stub
