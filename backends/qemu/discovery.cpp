#include "backends/qemu/discovery.h"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "backends/qemu/journal.h"
#include "backends/qemu/memory_map.h"
#include "backends/qemu/recover.h"
#include "backends/qemu/stub_control.h"
#include "backends/qemu/target.h"

namespace exo::qemu {
namespace {

std::string target_text(const Reach& reach) { return (reach.libvirt ? "libvirt:" : "qemu:") + reach.name; }

Result<std::unique_ptr<Monitor>> open_monitor(const Reach& reach) {
    if (!reach.libvirt) return open_qmp_monitor(reach.name);
#if EXOGDB_WITH_LIBVIRT
    return open_libvirt_monitor(reach.name, reach.connect);
#else
    return fail(Errc::unsupported, target_text(reach) + ": this exogdb was built without libvirt");
#endif
}

bool is_of(const JournalEntry& entry, const Reach& reach) {
    return entry.target == target_text(reach) && entry.connect == reach.connect;
}

Error owned(const JournalEntry& entry) {
    return {Errc::busy, "exogdb process " + std::to_string(entry.owner_pid) +
                            " has this guest; connect to that one, or end it"};
}

Reach reach_of(const JournalEntry& entry) {
    const auto colon = entry.target.find(':');
    return {.libvirt = entry.target.starts_with("libvirt:"),
            .name = entry.target.substr(colon + 1),
            .connect = entry.connect};
}

// --- doctor
// -------------------------------------------------------------------------------------------------------

Check passed(std::string name, std::string detail) { return {std::move(name), true, std::move(detail), {}}; }
Check failed(std::string name, std::string detail, std::string remedy) {
    return {std::move(name), false, std::move(detail), std::move(remedy)};
}

Check check_gdb_stub(Monitor& monitor) {
    const auto chardevs = query_chardevs(monitor);
    if (!chardevs) return failed("gdb stub of QEMU", chardevs.error().message, "look at the guest's log");
    if (!chardevs->stub) return passed("gdb stub of QEMU", "not in use");
    if (!chardevs->stub->connected)
        return passed("gdb stub of QEMU", "open on " + chardevs->stub->device + " without a client");
    return failed("gdb stub of QEMU", "a client is connected on " + chardevs->stub->device,
                  "disconnect that client: QEMU's stub takes one");
}

Check check_tracer(pid_t pid) {
    const auto tracer = status_field(pid, "TracerPid");
    if (!tracer || *tracer == "0") return passed("tracer", "none");
    // Reading memory does not need ptrace to be free; it is told because it may hold QEMU still.
    return passed("tracer",
                  "process " + *tracer + " traces QEMU (strace, gdb?): the guest may be slow or stand still");
}

// Yama (Documentation/admin-guide/LSM/Yama.rst): 0 same user, 1 only children, 2 only CAP_SYS_PTRACE, 3
// nobody.
std::string yama_hint() {
    const auto scope = read_proc_file("/proc/sys/kernel/yama/ptrace_scope");
    if (scope.empty() || scope.front() == '0') return {};
    return "; kernel.yama.ptrace_scope is " + scope.substr(0, 1);
}

Check check_memory_access(Monitor& monitor, const Process& process) {
    const std::string name = "access to QEMU's memory";
    const auto text = monitor.hmp("gpa2hva 0");
    const auto host = text ? parse_gpa2hva(*text) : std::nullopt;
    if (!host) return failed(name, "QEMU does not tell where guest RAM is", "use QEMU 2.10 or later");
    std::byte byte{};
    const iovec local{&byte, 1};
    const iovec remote{reinterpret_cast<void*>(*host), 1};
    if (::process_vm_readv(process.pid(), &local, 1, &remote, 1, 0) == 1)
        return passed(name, "process " + std::to_string(process.pid()) + " can be read");
    const auto user = status_field(process.pid(), "Uid").value_or("?");
    return failed(name,
                  std::string{"reading process "} + std::to_string(process.pid()) + ": " +
                      std::strerror(errno) + yama_hint(),
                  "run as root, or as QEMU's user (uid " + user.substr(0, user.find_first_of("\t ")) +
                      ") with kernel.yama.ptrace_scope=0, or with CAP_SYS_PTRACE");
}

// The profile that libvirt makes for a domain lets QEMU create its stub's socket beside its monitor's.
Check check_confinement(pid_t pid) {
    auto profile = read_proc_file("/proc/" + std::to_string(pid) + "/attr/current");
    while (!profile.empty() && (profile.back() == '\n' || profile.back() == '\0')) profile.pop_back();
    if (profile.empty() || profile.starts_with("unconfined")) return passed("confinement of QEMU", "none");
    return passed("confinement of QEMU", profile);
}

Check check_journal(const Process& process) {
    for (const auto& entry : read_journals()) {
        if (!entry.is_of(process)) continue;
        if (entry.owner_alive())
            return failed("other exogdb", "process " + std::to_string(entry.owner_pid) + " has this guest",
                          "connect to that one, or end it");
        return failed("other exogdb", "one was killed and left the guest unclean",
                      "run `exogdb recover " + entry.target + "`");
    }
    return passed("other exogdb", "none");
}

}  // namespace

Result<Guest> find(const Reach& reach) {
    auto monitor = TRY(open_monitor(reach));
    auto process = TRY(find_process(*monitor));
    const bool kvm = uses_kvm(*monitor);
    auto state = TRY(query_run_state(*monitor));
    return Guest{reach, std::move(monitor), std::move(process), kvm, std::move(state)};
}

Result<std::unique_ptr<Target>> open(Guest guest) {
    return open_target(std::move(guest.monitor), std::move(guest.process),
                       {.target = target_text(guest.reach), .connect = guest.reach.connect});
}

std::optional<Error> stub_in_use(const Guest& guest) {
    for (const auto& entry : read_journals()) {
        if (!entry.is_of(guest.process)) continue;
        if (entry.owner_alive()) return owned(entry);
        return Error{Errc::busy,
                     "a killed exogdb left this guest unclean; run `exogdb recover " + entry.target + "`"};
    }
    const auto chardevs = query_chardevs(*guest.monitor);
    if (!chardevs) return chardevs.error();
    return client_of_stub(*chardevs);
}

Result<void> recover_stale(const Guest& guest) { return recover_stale(*guest.monitor, guest.process); }

Result<RecoverReport> recover(const Reach& reach) {
    RecoverReport report;
    // Journals of guests that have ended have nothing to undo, and the name may be another guest's by now.
    for (const auto& entry : read_journals()) {
        if (entry.qemu_alive() || !is_of(entry, reach)) continue;
        remove_journal(entry.qemu_pid);
        report.actions.push_back("forgot the guest of QEMU process " + std::to_string(entry.qemu_pid) +
                                 ", which has ended");
    }
    const auto left = read_journals();
    if (left.empty()) return report;
    auto opened = open_monitor(reach);
    if (!opened && opened.error().code == Errc::not_found &&
        std::ranges::none_of(left, [&](const JournalEntry& entry) { return is_of(entry, reach); }))
        return report;  // it does not run, and nothing was left behind
    const auto monitor = TRY(std::move(opened));
    const auto process = TRY(find_process(*monitor));
    monitor->watch(process);
    for (const auto& entry : left) {
        if (!entry.is_of(process)) continue;
        if (entry.owner_pid != ::getpid() && entry.owner_alive()) return fail(owned(entry));
        std::ranges::move(TRY(recover_guest(*monitor, process, entry)), std::back_inserter(report.actions));
    }
    return report;
}

Result<RecoverReport> recover_process(pid_t pid) {
    RecoverReport report;
    for (const auto& entry : read_journals()) {
        if (entry.qemu_pid != pid || !entry.qemu_alive()) continue;
        if (entry.owner_alive()) return fail(owned(entry));
        std::ranges::move(TRY(recover(reach_of(entry))).actions, std::back_inserter(report.actions));
    }
    return report;
}

#if !EXOGDB_WITH_LIBVIRT
Result<std::vector<GuestSummary>> list_libvirt(const std::string&) { return std::vector<GuestSummary>{}; }
#endif

Diagnosis diagnose(const Reach& reach) {
    Diagnosis found;
    const std::string way = reach.libvirt ? "libvirt" : "QMP socket";
    auto monitor = open_monitor(reach);
    if (!monitor) {
        const auto& message = monitor.error().message;
        const auto semicolon = message.find("; ");
        found.checks.push_back(failed(
            way, message.substr(0, semicolon),
            semicolon == std::string::npos ? "see what " + way + " says" : message.substr(semicolon + 2)));
        return found;
    }
    found.checks.push_back(passed(way, (*monitor)->description()));
    auto process = find_process(**monitor);
    if (!process) {
        found.checks.push_back(failed("process", process.error().message, "run on the guest's host"));
        return found;
    }
    found.checks.push_back(passed("process", "QEMU is pid " + std::to_string(process->pid())));
    auto state = query_run_state(**monitor);
    if (!state) {
        found.checks.push_back(failed("guest state", state.error().message, "look at the guest's log"));
        return found;
    }
    found.checks.push_back(passed("guest state", state->name));
    const bool kvm = uses_kvm(**monitor);
    found.guest = Guest{reach, std::move(*monitor), std::move(*process), kvm, std::move(*state)};
    return found;
}

std::vector<Check> diagnose_stub(const Guest& guest) {
    return {check_gdb_stub(*guest.monitor), check_memory_access(*guest.monitor, guest.process),
            check_tracer(guest.process.pid()), check_confinement(guest.process.pid()),
            check_journal(guest.process)};
}

}  // namespace exo::qemu
