// One virtual machine as the stub sees it: the target, the operating system in it, and what is known since
// the last stop. The only place where backends/ and os-awareness/ meet.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/target.h"
#include "os-awareness/os.h"
#include "os-awareness/page_cache.h"
#include "os-awareness/user_space.h"
#include "stub/clean_memory.h"
#include "stub/user_program.h"
#include "stub/virtual_files.h"

namespace exo::stub {

class Machine {
public:
    // How an OS is looked for: os::probe() with a choice, or what a test puts in its place.
    using Probe = std::function<std::unique_ptr<os::OsAwareness>(const os::ProbeContext&, os::ProbeFailure&)>;

    Machine(std::unique_ptr<Target> target, os::Choice choice, os::Progress progress = {});
    Machine(std::unique_ptr<Target> target, Probe probe, os::Progress progress = {});
    ~Machine();

    [[nodiscard]] Target& target() { return *target_; }
    // Guest memory as it is without our breakpoints in it. Small reads are of the last stop, or of the last
    // look at a guest that runs.
    [[nodiscard]] PhysicalMemory& memory() { return cache_; }
    [[nodiscard]] CleanMemory& clean_memory() { return memory_; }
    [[nodiscard]] const RegisterLayout& layout() const { return target_->layout(); }

    // Looks at the guest as it is now, running or stopped: drops what was cached, refreshes the OS, probes
    // for one where there is none or where it is gone. Errors only if the target is.
    Result<void> look();
    // look(), once, at the first question after a stop: steps that nobody asks about cost nothing.
    Result<void> look_once();
    // The task that `vcpu` executes in a guest that stands, without a look at the others. Nothing where only
    // look_once() can tell; whether there is an OS, for one.
    std::optional<os::Task> current_task(VcpuId vcpu);
    // What os() gives is of this stop: by look_once(), unless current_task() has seen it.
    Result<void> look_for_os_once();
    void forget();  // the guest runs on: nothing that was read is true any more
    // Of vCPUs that do not run when others do: theirs stay true.
    void keep_registers_of(std::set<VcpuId> held) { held_ = std::move(held); }
    // Whether all_vcpu_registers() of `vcpu` asks nobody.
    [[nodiscard]] bool has_all_registers(VcpuId vcpu) const { return completed_.contains(vcpu); }
    void forget_memory();  // guest memory was changed: page tables may have been

    // Null while none is recognised; `probe_failure` then says what was tried.
    [[nodiscard]] os::OsAwareness* os() { return os_.get(); }
    [[nodiscard]] const os::ProbeFailure& probe_failure() const { return failure_; }
    // Counts up whenever the OS appeared, went away or was replaced.
    [[nodiscard]] std::uint64_t os_generation() const { return os_generation_; }

    // A vmlinux of the user's: the program from now on, for as long as the guest runs that build.
    void set_program(UserProgram program) { user_program_ = std::move(program); }
    // The program that a debugger is given, made at the first call and again when another OS has appeared.
    // The debugger moves it by the OS's slide(); a `loaded` one, which is never the user's own, is where the
    // kernel runs.
    Result<std::shared_ptr<const PublishedFile>> symbol_file(bool loaded = false);
    // What the kernel has loaded; read at the first question after a stop. Empty where no OS is recognised.
    const os::OsAwareness::Modules& modules();
    // The kernel as a library: under a name that another kernel, or the same one elsewhere, does not have.
    struct KernelLibrary {
        std::string path;  // of published_file(), which is symbol_file()
        VirtualAddress segment{};
    };
    Result<KernelLibrary> kernel_library();
    // Where published_file() has the file of one of modules(). Another when it was loaded again elsewhere.
    static std::string module_path(const os::Module& module);
    // The file of that path, the kernel's or a module's, made when it is first asked for; not_found, and
    // nothing is made, for any other.
    Result<std::shared_ptr<const PublishedFile>> published_file(std::string_view path);

    // Cached until forget().
    Result<const RegisterSet*> vcpu_registers(VcpuId vcpu);
    // With those too that are slow to get (Target::complete_registers): for who shows all registers.
    Result<const RegisterSet*> all_vcpu_registers(VcpuId vcpu);
    Result<void> write_vcpu_registers(VcpuId vcpu, const RegisterSet& values,
                                      std::span<const RegisterNumber> numbers);

    // Where the vCPU goes on when it is resumed, which it is to be next (Target::move_to).
    Result<void> move_to(VcpuId vcpu, VirtualAddress pc);

    // Addresses as the given task sees them; as the vCPU's own page tables say without one.
    Result<AddressSpace*> task_space(const os::Task& task);
    Result<AddressSpace*> vcpu_space(VcpuId vcpu);
    // What the task's process can reach itself.
    Result<os::UserSpace*> process_space(const os::Task& task);
    // To be read only: with what of it is in memory and not mapped (os::Processes::readable_space).
    Result<AddressSpace*> readable_space(const os::Task& task);

    // Whether the task's program is of 32 bits; false where that cannot be told.
    bool is_32_bit(const os::Task& task);

    // os::Processes::is_private_page(); false where that cannot be told.
    bool is_private_page(PhysicalAddress page);

    // Of the task's user mode, which `vcpu` executes now, or no vCPU. Written where they were read from.
    // `all`: with those too that are slow to get.
    Result<os::UserRegisters> user_registers(const os::Task& task, std::optional<VcpuId> vcpu, bool all);
    Result<void> write_user_registers(const os::UserRegisters& registers, std::optional<VcpuId> vcpu,
                                      std::span<const RegisterNumber> numbers);

private:
    Result<std::vector<RegisterSet>> all_registers();
    Result<void> look_now();
    void tell_remarks();
    // Where it is what the guest runs.
    [[nodiscard]] std::shared_ptr<const PublishedFile> matching_program();
    Result<std::shared_ptr<const PublishedFile>> made_symbol_file(bool loaded);
    [[nodiscard]] std::string kernel_library_path(const PublishedFile& file) const;
    void look_for_os(std::span<const RegisterSet> vcpus);
    Result<std::shared_ptr<const PublishedFile>> module_file(const os::Module& module);
    void forget_module_files();

    std::unique_ptr<Target> target_;
    CleanMemory memory_;
    os::PageCache cache_{memory_};
    Probe probe_;
    std::vector<std::string> remarks_;  // that the log has
    os::Progress progress_;
    std::unique_ptr<os::OsAwareness> os_;
    os::ProbeFailure failure_;
    std::uint64_t os_generation_ = 0;
    std::optional<UserProgram> user_program_;
    bool program_matches_ = false;  // at program_checked_generation_
    std::uint64_t program_checked_generation_ = UINT64_MAX;
    std::array<std::shared_ptr<const PublishedFile>, 2> symbol_files_;  // as linked, loaded
    std::uint64_t symbol_files_generation_ = 0;
    std::optional<os::OsAwareness::Modules> modules_;  // since the last stop
    std::map<std::string, std::shared_ptr<const PublishedFile>, std::less<>> module_files_;  // by path
    bool fresh_ = false;  // look() since forget()
    bool told_ = false;   // current_task() told one since forget()
    std::map<VcpuId, RegisterSet> registers_;
    std::set<VcpuId> held_;
    std::set<VcpuId> completed_;  // of registers_
    std::map<VirtualAddress, std::unique_ptr<AddressSpace>> task_spaces_;
    std::map<VcpuId, std::unique_ptr<AddressSpace>> vcpu_spaces_;
    std::map<VirtualAddress, os::UserSpace> process_spaces_;  // on those of task_spaces_
    std::map<VirtualAddress, std::unique_ptr<AddressSpace>> readable_spaces_;
    std::map<VirtualAddress, bool> are_32_bit_;  // by Task::memory
};

}  // namespace exo::stub
