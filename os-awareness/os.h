// What the stub asks of an operating system. Implementations see guest memory and vCPU registers only: no
// packet, no socket, no Target. All guest data is hostile: every list has a bound and a cycle check, every
// size a limit, and what breaks off is said in problems().
//
// To add an OS: implement OsAwareness and a probe function under os-awareness/NAME/, add its row in
// os-awareness/probes.cpp.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/memory.h"
#include "backends/api/registers.h"
#include "backends/api/target.h"
#include "os-awareness/elf/byte_sink.h"
#include "os-awareness/process.h"
#include "os-awareness/symbols.h"
#include "os-awareness/user_registers.h"

namespace exo::os {

struct Task {
    VirtualAddress address{};  // of the task_struct: its identity
    std::uint32_t tid = 0;     // as the guest calls it; 0 for every idle task
    std::uint32_t tgid = 0;
    std::uint32_t cpu = 0;       // on which it runs or last ran
    std::string comm;            // bytes that are not printable ASCII are '?'
    std::string process;         // comm of the thread group leader
    char state = '?';            // as ps: R S D T t X Z P I
    bool idle = false;           // swapper/N
    bool kernel_thread = false;  // no user address space of its own
    bool ended = false;          // it never runs again, but for what is left of its end
    std::optional<VcpuId> vcpu;  // set while it is the one that this vCPU executes
    VirtualAddress wchan{};      // where it sleeps, 0 when not known
    VirtualAddress
        memory{};  // its address space's identity: tasks that share it have the same; 0 of a kernel thread

    bool operator==(const Task&) const = default;
};

// A part of the kernel that was loaded later.
struct Module {
    struct Range {
        std::string_view section;  // ".text", as a section of its symbol file
        VirtualAddress start{};
        std::uint64_t size = 0;
        bool executable = false;
        bool writable = false;

        bool operator==(const Range&) const = default;
    };
    VirtualAddress address{};   // of its struct module: its identity, as long as it is loaded
    std::string name;           // letters, digits, '_', '-' and '.'; others are '?'
    std::vector<Range> memory;  // by address, disjoint
    std::uint64_t size = 0;     // bytes of all its memory
    std::uint32_t users = 0;    // references to it
    bool initialising = false;  // its init function has not returned yet

    bool operator==(const Module&) const = default;
};

// One line of `exogdb info`: what was found and by what.
struct Finding {
    std::string what;   // "slide"
    std::string value;  // "0x1c000000"
    std::string how;    // "kallsyms _text against 0xffffffff81000000"
};

// One record of the kernel's log.
struct LogRecord {
    struct Caller {
        bool cpu = false;  // an interrupt or the like on that CPU; else the task with that TID
        std::uint32_t number = 0;
    };

    std::uint64_t time_ns = 0;  // of the clock that stamps the log, from boot on
    std::uint64_t sequence = 0;
    std::uint8_t level = 0;  // as syslog(3): 0 emergency … 7 debug
    std::uint8_t facility = 0;
    std::optional<Caller> caller;
    std::string text;  // the guest's bytes, whatever they are; more than one line where it has line feeds
};

struct KernelLog {
    std::vector<LogRecord> records;    // oldest first
    std::vector<std::string> missing;  // what is not among them and why, one line each
};

struct StackFrame {
    VirtualAddress pc{};
    // Whether `pc` is the next instruction of this frame: of the innermost one, and of what was interrupted.
    // Else it is where a call returns to, which may be past the end of the function that called.
    bool interrupted = false;
};

struct Backtrace {
    std::vector<StackFrame> frames;  // innermost first
    std::string broken;              // why it ends before the beginning of the stack; empty if it does not
};

// Where an address is, by the nearest symbol at or below it.
struct Place {
    std::string symbol;
    std::uint64_t offset = 0;
    std::string module;  // that has it; empty: the kernel itself
};

class OsAwareness {
public:
    OsAwareness() = default;
    OsAwareness(const OsAwareness&) = delete;
    OsAwareness& operator=(const OsAwareness&) = delete;
    virtual ~OsAwareness() = default;

    [[nodiscard]] virtual std::string_view name() const = 0;  // "linux"
    [[nodiscard]] virtual std::string version() const = 0;    // "6.1.0-56-cloud-amd64"
    [[nodiscard]] virtual std::span<const Finding> findings() const = 0;

    // Takes a snapshot of the tasks; called once a stop, with each vCPU's registers in order. An error
    // means that this kernel is not there any more (reset, kexec): probe again.
    virtual Result<void> refresh(std::span<const RegisterSet> vcpus) = 0;
    // The task that vCPU `vcpu` executes now, as refresh() would have it among tasks(), without a look at the
    // others. The snapshot stays as it is; task_space() knows this task too, until the next call of either.
    // Nothing where only refresh() can tell: of this vCPU, or whether this kernel is still there.
    virtual std::optional<Task> current_task(const RegisterSet& /*registers*/, VcpuId /*vcpu*/) { return {}; }
    // Guest memory may have changed, and page tables with it. The snapshot stays as it is.
    virtual void forget_translations() { kernel_space().forget(); }

    // The snapshot. A vCPU whose current task could not be told is in none of them.
    [[nodiscard]] virtual std::span<const Task> tasks() const = 0;
    // What in the last refresh could not be trusted or read, one line each.
    [[nodiscard]] virtual std::span<const std::string> problems() const = 0;

    // Registers of a task that runs on no vCPU: the saved ones, the rest unavailable.
    virtual Result<RegisterSet> saved_registers(const Task& task) = 0;

    // Of the user mode of a task, as a debugger of its process is to see them: those of the vCPU that
    // executes it in user mode, else what the kernel keeps of them. `vcpu` has all registers of the vCPU that
    // executes the task; null: none does. bad_data where the kernel keeps none that make sense.
    virtual Result<UserRegisters> user_registers(const Task& task, const RegisterSet* /*vcpu*/) {
        return fail(Errc::unsupported, "user registers of " + task.comm + " cannot be told in this system");
    }

    // The kernel's own page tables: kernel addresses only, valid whatever the vCPUs do.
    [[nodiscard]] virtual AddressSpace& kernel_space() = 0;
    // Kernel half as kernel_space(), user half through the task's mm->pgd; a kernel thread has none.
    virtual Result<std::unique_ptr<AddressSpace>> task_space(const Task& task) = 0;

    [[nodiscard]] virtual const SymbolTable& symbols() const = 0;
    // Of the kernel and its modules; nothing for an address that is in neither. By name: the kernel's first.
    virtual std::optional<Place> locate(VirtualAddress address) = 0;
    virtual std::optional<VirtualAddress> find_symbol(std::string_view name) { return symbols().find(name); }
    // Run-time address minus link-time address of the kernel image; what qOffsets gives.
    [[nodiscard]] virtual std::uint64_t slide() const = 0;

    // What a debugger is given as the program (os-awareness/symbol_file.h): "vmlinux-6.1.0-56-cloud-amd64".
    [[nodiscard]] virtual std::string symbol_file_name() const = 0;
    // Made anew at each call, out of guest memory. The result is what it lacks and why, one line each.
    // Addresses are the linker's plus `moved`: 0 for a debugger that moves them itself, else slide().
    virtual Result<std::vector<std::string>> write_symbol_file(ByteSink& sink, std::uint64_t moved) = 0;

    // Null where this kernel does not tell enough of its processes.
    virtual Processes* processes() { return nullptr; }

    // The log as it is in memory now; also while the guest runs and writes it.
    virtual Result<KernelLog> kernel_log() = 0;

    // Who called whom in the kernel, from a vCPU's registers or saved_registers() on. In user mode: that
    // frame alone.
    virtual Backtrace backtrace(const RegisterSet& registers) = 0;

    // What is added to the address of a per-CPU variable for the one of CPU `cpu`.
    virtual Result<std::uint64_t> per_cpu_offset(std::uint32_t cpu) = 0;
    // The address of a per-CPU variable of the kernel, to which that is added: by its name, or by the address
    // that a debugger has of it, which may have been moved by slide(). not_found for what is none.
    virtual Result<VirtualAddress> per_cpu_variable(std::string_view symbol) = 0;
    virtual Result<VirtualAddress> per_cpu_variable(VirtualAddress address) = 0;

    // Of the kernel, as its linker made it: the one word by which a vmlinux on disk is known to be this one.
    virtual Result<std::vector<std::byte>> build_id() {
        return fail(Errc::not_found, "a build id is not looked for in this system");
    }

    struct Modules {
        std::vector<Module> modules;        // in the guest's order, the last loaded first
        std::vector<std::string> problems;  // what could not be read or trusted, one line each
    };
    // What is loaded now: read anew at each call.
    virtual Modules modules() { return {}; }
    // The symbol file of one of modules(), at run-time addresses; as write_symbol_file().
    virtual Result<std::vector<std::string>> write_module_file(const Module& module, ByteSink& /*sink*/) {
        return fail(Errc::unsupported, "no symbols of the module " + module.name);
    }
};

using Progress = std::function<void(std::string_view what)>;

struct ProbeContext {
    PhysicalMemory& memory;
    std::span<const RegisterSet> vcpus;  // in vCPU order, all of one layout
    Progress progress;                   // may be empty
};

// What was tried when no OS was recognised; each line names a step and why it failed.
struct ProbeFailure {
    std::vector<std::string> steps;
};

enum class Choice : std::uint8_t { automatic, linux, none };

// Null with `failure` filled when nothing was recognised: not an error, a guest may be in firmware.
std::unique_ptr<OsAwareness> probe(const ProbeContext& context, Choice choice, ProbeFailure& failure);

}  // namespace exo::os
