#include "stub/machine.h"

#include <algorithm>

#include <spdlog/spdlog.h>

#include "backends/arch/x86_64.h"
#include "os-awareness/elf/elf_file.h"
#include "os-awareness/page_tables.h"

namespace exo::stub {
namespace {

// Files of modules that are kept for the next client; a client keeps those that it has open.
constexpr std::uint64_t max_kept_bytes = std::uint64_t{256} << 20;

// The address makes the name of a loaded one another when the kernel is elsewhere.
std::string symbol_file_path(const os::OsAwareness& os, bool loaded) {
    return std::string{published_folder} + (loaded ? hex(os.slide()) + "/" : "") + os.symbol_file_name();
}

class MemoryFileSink final : public os::ByteSink {
public:
    explicit MemoryFileSink(MemoryFile& file) : file_(file) {}
    Result<void> write(ConstBytes bytes) override { return file_.append(bytes); }

private:
    MemoryFile& file_;
};

}  // namespace

Machine::Machine(std::unique_ptr<Target> target, os::Choice choice, os::Progress progress)
    : Machine(
          std::move(target),
          [choice](const os::ProbeContext& context, os::ProbeFailure& failure) {
              return os::probe(context, choice, failure);
          },
          std::move(progress)) {}

Machine::Machine(std::unique_ptr<Target> target, Probe probe, os::Progress progress)
    : target_(std::move(target)),
      memory_(target_->memory()),
      probe_(std::move(probe)),
      progress_(std::move(progress)) {}

Machine::~Machine() = default;

Result<std::vector<RegisterSet>> Machine::all_registers() {
    std::vector<RegisterSet> all;
    const std::uint32_t count = target_->vcpu_count();
    all.reserve(count);
    for (VcpuId vcpu = 0; vcpu < count; ++vcpu) all.push_back(*TRY(vcpu_registers(vcpu)));
    return all;
}

Result<void> Machine::look() {
    forget();
    return look_now();
}

Result<void> Machine::look_now() {
    const auto vcpus = TRY(all_registers());
    tell_remarks();
    if (os_) {
        if (auto refreshed = os_->refresh(vcpus); !refreshed) {
            spdlog::info("{} is not there any more: {}", os_->version(), refreshed.error().message);
            os_.reset();
            ++os_generation_;
        }
    }
    if (!os_) look_for_os(vcpus);
    if (os_) spdlog::trace("looked at {} tasks", os_->tasks().size());
    fresh_ = true;
    return {};
}

// Each once, until it is true no more.
void Machine::tell_remarks() {
    auto remarks = target_->remarks();
    for (const auto& remark : remarks)
        if (std::ranges::find(remarks_, remark) == remarks_.end()) spdlog::warn("{}", remark);
    remarks_ = std::move(remarks);
}

void Machine::look_for_os(std::span<const RegisterSet> vcpus) {
    failure_ = {};
    auto found = probe_({.memory = cache_, .vcpus = vcpus, .progress = progress_}, failure_);
    if (!found) return;
    if (auto refreshed = found->refresh(vcpus); !refreshed) {
        failure_.steps.push_back("listing the tasks: " + refreshed.error().message);
        return;
    }
    os_ = std::move(found);
    ++os_generation_;
    spdlog::info("{} {}", os_->name(), os_->version());
}

std::shared_ptr<const PublishedFile> Machine::matching_program() {
    if (!user_program_ || !os_) return nullptr;
    if (program_checked_generation_ != os_generation_) {
        program_checked_generation_ = os_generation_;
        const auto checked = check_is_of_guest(*user_program_, *os_);
        program_matches_ = checked.has_value();
        if (!checked) {
            spdlog::warn("{}; until then the file made from guest memory is given", checked.error().message);
        }
    }
    return program_matches_ ? user_program_->file : nullptr;
}

Result<std::shared_ptr<const PublishedFile>> Machine::made_symbol_file(bool loaded) {
    if (symbol_files_generation_ != os_generation_) symbol_files_ = {};
    symbol_files_generation_ = os_generation_;
    auto& made = symbol_files_.at(loaded ? 1 : 0);
    if (made) return made;
    MemoryFile content = TRY(MemoryFile::create("exogdb-symbols"));
    MemoryFileSink sink{content};
    if (progress_) progress_("making the symbol file");
    for (const auto& problem : TRY(os_->write_symbol_file(sink, loaded ? os_->slide() : 0))) {
        spdlog::info("symbol file: {}", problem);
    }
    made = std::make_shared<const PublishedFile>(
        PublishedFile{symbol_file_path(*os_, loaded), std::move(content)});
    return made;
}

Result<std::shared_ptr<const PublishedFile>> Machine::symbol_file(bool loaded) {
    if (!os_) return fail(Errc::not_found, "no operating system is recognised, so there are no symbols");
    if (auto program = matching_program()) {
        if (!loaded) return program;
        spdlog::warn("gdb does not move {} in non-stop mode; it is given the file made from guest memory",
                     program->path);
    }
    return made_symbol_file(loaded);
}

std::string Machine::kernel_library_path(const PublishedFile& file) const {
    const std::string name = file.path.substr(file.path.rfind('/') + 1);
    return std::string{published_folder} + "kernel-" + std::to_string(os_generation_) + "/" + name;
}

Result<Machine::KernelLibrary> Machine::kernel_library() {
    const auto file = TRY(symbol_file());
    const auto linked = TRY(os::read_link_address(
        [&](std::uint64_t offset, MutableBytes out) { return file->content.read(offset, out); }));
    return KernelLibrary{kernel_library_path(*file), VirtualAddress{linked + os_->slide()}};
}

const os::OsAwareness::Modules& Machine::modules() {
    if (!modules_) {
        modules_ = os_ ? os_->modules() : os::OsAwareness::Modules{};
        forget_module_files();
    }
    return *modules_;
}

// The address makes the name another when the module is: a debugger does not read a name anew that it has.
std::string Machine::module_path(const os::Module& module) {
    const std::uint64_t start = module.memory.empty() ? 0 : raw(module.memory.front().start);
    return std::string{published_folder} + hex(start) + (module.initialising ? "/init/" : "/") + module.name +
           ".ko";
}

// Of modules that are gone, or all of them when they are too many.
void Machine::forget_module_files() {
    std::uint64_t kept = 0;
    std::set<std::string, std::less<>> paths;
    for (const auto& module : modules_->modules) paths.insert(module_path(module));
    std::erase_if(module_files_, [&](const auto& file) {
        kept += file.second->content.size();
        return !paths.contains(file.first) || kept > max_kept_bytes;
    });
}

Result<std::shared_ptr<const PublishedFile>> Machine::module_file(const os::Module& module) {
    const std::string path = module_path(module);
    auto& file = module_files_[path];
    if (file) return file;
    MemoryFile content = TRY(MemoryFile::create("exogdb-module"));
    MemoryFileSink sink{content};
    for (const auto& problem : TRY(os_->write_module_file(module, sink))) {
        spdlog::info("{}: {}", path, problem);
    }
    file = std::make_shared<const PublishedFile>(PublishedFile{path, std::move(content)});
    return file;
}

Result<std::shared_ptr<const PublishedFile>> Machine::published_file(std::string_view path) {
    if (auto program = matching_program(); program && path == program->path) return program;
    for (const bool loaded : {false, true}) {
        if (os_ && path == symbol_file_path(*os_, loaded)) return made_symbol_file(loaded);
    }
    if (os_ && path.starts_with(std::string{published_folder} + "kernel-")) {
        if (auto file = TRY(symbol_file()); path == kernel_library_path(*file)) return file;
    }
    if (os_ && path.starts_with(published_folder)) {
        for (const auto& module : modules().modules) {
            if (module_path(module) == path) return module_file(module);
        }
    }
    return fail(Errc::not_found, "no such file: " + std::string{path});
}

// What was read for current_task() is of this stop, too.
Result<void> Machine::look_once() {
    if (fresh_) return {};
    return told_ ? look_now() : look();
}

std::optional<os::Task> Machine::current_task(VcpuId vcpu) {
    if (fresh_ || !os_) return std::nullopt;  // the list costs nothing more, or the OS has to be looked for
    const auto registers = vcpu_registers(vcpu);
    if (!registers) return std::nullopt;
    auto task = os_->current_task(**registers, vcpu);
    told_ = told_ || task;
    return task;
}

Result<void> Machine::look_for_os_once() { return told_ ? Result<void>{} : look_once(); }

void Machine::forget() {
    fresh_ = told_ = false;
    std::erase_if(registers_, [&](const auto& entry) { return !held_.contains(entry.first); });
    std::erase_if(completed_, [&](VcpuId vcpu) { return !held_.contains(vcpu); });
    forget_memory();
}

void Machine::forget_memory() {
    cache_.invalidate();
    modules_.reset();
    if (os_) os_->forget_translations();
    process_spaces_.clear();
    readable_spaces_.clear();
    task_spaces_.clear();
    vcpu_spaces_.clear();
    are_32_bit_.clear();
}

Result<const RegisterSet*> Machine::vcpu_registers(VcpuId vcpu) {
    if (vcpu >= target_->vcpu_count()) return fail(Errc::no_such_thread, "no vCPU " + std::to_string(vcpu));
    auto it = registers_.find(vcpu);
    if (it == registers_.end()) it = registers_.emplace(vcpu, TRY(target_->read_registers(vcpu))).first;
    return &it->second;
}

Result<const RegisterSet*> Machine::all_vcpu_registers(VcpuId vcpu) {
    CHECK_OK(vcpu_registers(vcpu));
    RegisterSet& registers = registers_.at(vcpu);
    if (!completed_.insert(vcpu).second) return &registers;
    // Those that it could not get are unavailable, which is what the user sees.
    if (auto completed = target_->complete_registers(vcpu, registers); !completed) {
        spdlog::warn("reading all registers of vCPU {}: {}", vcpu, completed.error().message);
    }
    return &registers;
}

Result<void> Machine::write_vcpu_registers(VcpuId vcpu, const RegisterSet& values,
                                           std::span<const RegisterNumber> numbers) {
    registers_.erase(vcpu);
    completed_.erase(vcpu);
    vcpu_spaces_.erase(vcpu);
    return target_->write_registers(vcpu, values, numbers);
}

Result<void> Machine::move_to(VcpuId vcpu, VirtualAddress pc) {
    registers_.erase(vcpu);
    completed_.erase(vcpu);
    return target_->move_to(vcpu, raw(pc));
}

Result<AddressSpace*> Machine::task_space(const os::Task& task) {
    auto& space = task_spaces_[task.address];
    if (!space) space = TRY(os_->task_space(task));
    return space.get();
}

Result<AddressSpace*> Machine::vcpu_space(VcpuId vcpu) {
    auto& space = vcpu_spaces_[vcpu];
    if (space) return space.get();
    const RegisterSet& registers = *TRY(vcpu_registers(vcpu));
    const auto mode = x86::paging_mode(registers);
    const auto root = registers.get(x86::cr3);
    if (!mode || !root) {
        return fail(Errc::unsupported, "vCPU " + std::to_string(vcpu) + " has no known paging mode");
    }
    auto tables = std::make_unique<os::PageTables>(cache_, PhysicalAddress{*root}, *mode);
    if (os_ == nullptr) {
        space = std::move(tables);
    } else {
        space = std::make_unique<os::SplitAddressSpace>(os_->kernel_space(), std::move(tables));
    }
    return space.get();
}

}  // namespace exo::stub
