#include "os-awareness/linux/proc_status.h"

#include <algorithm>
#include <array>

#include "os-awareness/linux/constants.h"
#include "os-awareness/linux/text.h"

namespace exo::os {
namespace {

struct StateName {
    char letter;
    const char* name;
};
// task_state_array[], fs/proc/array.c.
constexpr auto state_names = std::to_array<StateName>({{'R', "running"},
                                                       {'S', "sleeping"},
                                                       {'D', "disk sleep"},
                                                       {'T', "stopped"},
                                                       {'t', "tracing stop"},
                                                       {'X', "dead"},
                                                       {'Z', "zombie"},
                                                       {'P', "parked"},
                                                       {'I', "idle"}});

std::string state_text(char letter) {
    const auto it = std::ranges::find(state_names, letter, &StateName::letter);
    return std::string{letter} + " (" + (it == state_names.end() ? "unknown" : it->name) + ")";
}

// proc_task_name() with its third argument true.
std::string escaped(std::string_view comm) {
    std::string text;
    for (const char c : comm) {
        if (c == '\n') {
            text += "\\n";
        } else {
            if (c == '\\') text += c;
            text += c;
        }
    }
    return text;
}

std::string kilobytes(std::string_view name, std::uint64_t bytes) {
    return std::string{name} + ":\t" + number_text(bytes >> 10U, 10, 8, ' ') + " kB\n";
}

}  // namespace

Result<std::string> ProcStatus::comm(const Task& task) const {
    return structures_->text_in(raw(task.address), layout_->task.comm, comm_bytes);
}

Result<std::uint32_t> ProcStatus::parent(const Task& task) const {
    const auto parent = TRY(of(task, layout_->task.real_parent));
    return static_cast<std::uint32_t>(TRY(structures_->value(parent, layout_->task.tgid)));
}

Result<std::uint32_t> ProcStatus::number(std::uint64_t pid) const {
    if (pid == 0) return 0U;
    return static_cast<std::uint32_t>(TRY(structures_->value(pid, layout_->signal.numbers)));
}

Result<std::string> ProcStatus::ids(const Task& task) const {
    const auto& layout = layout_->cred;
    const auto cred = TRY(of(task, layout_->task.cred));
    const auto line = [&](const char* name, std::array<const Member*, 4> members) -> Result<std::string> {
        std::string text = name;
        for (const auto* member : members) {
            text += "\t" + std::to_string(static_cast<std::uint32_t>(TRY(structures_->value(cred, *member))));
        }
        return text + "\n";
    };
    return TRY(line("Uid:", {&layout.uid, &layout.euid, &layout.suid, &layout.fsuid})) +
           TRY(line("Gid:", {&layout.gid, &layout.egid, &layout.sgid, &layout.fsgid}));
}

// task_mem().
Result<std::string> ProcStatus::memory(std::uint64_t mm) const {
    const auto& layout = layout_->mm;
    const auto pages = [&](const Member& member) -> Result<std::uint64_t> {
        return TRY(structures_->value(mm, member)) << small_page_shift;
    };
    const auto total = TRY(pages(layout.total_vm));
    const auto executable = TRY(pages(layout.exec_vm));
    const auto end = TRY(structures_->value(mm, layout.end_code));
    const auto start = TRY(structures_->value(mm, layout.start_code));
    const auto whole = ((end + small_page - 1) & ~(small_page - 1)) - (start & ~(small_page - 1));
    const auto code = std::min(whole, executable);
    return kilobytes("VmPeak", std::max(total, TRY(pages(layout.hiwater_vm)))) + kilobytes("VmSize", total) +
           kilobytes("VmLck", TRY(pages(layout.locked_vm))) +
           kilobytes("VmPin", TRY(pages(layout.pinned_vm))) +
           kilobytes("VmData", TRY(pages(layout.data_vm))) + kilobytes("VmStk", TRY(pages(layout.stack_vm))) +
           kilobytes("VmExe", code) + kilobytes("VmLib", executable - code) +
           kilobytes("VmPTE", TRY(structures_->value(mm, layout.pgtables_bytes)));
}

Result<std::string> ProcStatus::signals(const Task& task) const {
    const auto signal = TRY(of(task, layout_->task.signal));
    return "SigPnd:\t" + hex_digits(TRY(of(task, layout_->task.pending)), 16) + "\nShdPnd:\t" +
           hex_digits(TRY(structures_->value(signal, layout_->signal.shared_pending)), 16) + "\nSigBlk:\t" +
           hex_digits(TRY(of(task, layout_->task.blocked)), 16) + "\n";
}

Result<std::string> ProcStatus::capabilities(std::uint64_t cred) const {
    const auto& layout = layout_->cred;
    std::string text;
    for (const auto& [name, member] : {std::pair{"CapInh", &layout.inheritable},
                                       {"CapPrm", &layout.permitted},
                                       {"CapEff", &layout.effective},
                                       {"CapBnd", &layout.bounding},
                                       {"CapAmb", &layout.ambient}}) {
        text += std::string{name} + ":\t" + hex_digits(TRY(structures_->value(cred, *member)), 16) + "\n";
    }
    return text;
}

Result<std::string> ProcStatus::status(const Task& task) const {
    const auto& layout = layout_->task;
    std::string text = "Name:\t" + escaped(TRY(comm(task))) + "\n";
    if (const auto fs = TRY(of(task, layout.fs)); fs != 0) {
        text += "Umask:\t0" + number_text(TRY(structures_->value(fs, layout_->fs.umask)), 8, 3) + "\n";
    }
    const bool traced = TRY(of(task, layout.ptrace)) != 0;
    const auto tracer =
        traced ? TRY(structures_->value(TRY(of(task, layout.parent)), layout.pid)) : std::uint64_t{0};
    text += "State:\t" + state_text(task.state) + "\nTgid:\t" + std::to_string(task.tgid) + "\nPid:\t" +
            std::to_string(task.tid) + "\nPPid:\t" + std::to_string(TRY(parent(task))) + "\nTracerPid:\t" +
            std::to_string(tracer) + "\n" + TRY(ids(task));
    if (const auto mm = TRY(of(task, layout.mm)); mm != 0 && !task.kernel_thread) text += TRY(memory(mm));
    const auto signal = TRY(of(task, layout.signal));
    text += "Threads:\t" + std::to_string(TRY(structures_->value(signal, layout_->signal.nr_threads))) +
            "\n" + TRY(signals(task)) + TRY(capabilities(TRY(of(task, layout.cred))));
    return text;
}

// " tty_nr tpgid": new_encode_dev() of the terminal's number.
Result<std::string> ProcStatus::terminal(std::uint64_t signal) const {
    const auto tty = TRY(structures_->value(signal, layout_->signal.tty));
    if (tty == 0) return std::string{" 0 -1"};
    const auto& layout = layout_->tty;
    const auto driver = TRY(structures_->value(tty, layout.driver));
    const auto major = TRY(structures_->value(driver, layout.major));
    const auto minor =
        TRY(structures_->value(driver, layout.minor_start)) + TRY(structures_->value(tty, layout.index));
    const auto group = TRY(structures_->value(tty, layout.group));
    const auto encoded = (minor & 0xff) | major << 8U | (minor & ~std::uint64_t{0xff}) << 12U;
    return " " + std::to_string(encoded) + " " +
           (group == 0 ? std::string{"-1"} : std::to_string(TRY(number(group))));
}

Result<std::string> ProcStatus::stat(const Task& task) const {
    const auto signal = TRY(of(task, layout_->task.signal));
    const auto id = [&](const Member& member) -> Result<std::string> {
        return " " + std::to_string(TRY(number(TRY(structures_->value(signal, member)))));
    };
    return std::to_string(task.tid) + " (" + TRY(comm(task)) + ") " + task.state + " " +
           std::to_string(TRY(parent(task))) + TRY(id(layout_->signal.process_group)) +
           TRY(id(layout_->signal.session)) + TRY(terminal(signal)) + " " +
           std::to_string(TRY(of(task, layout_->task.flags))) + "\n";
}

}  // namespace exo::os
