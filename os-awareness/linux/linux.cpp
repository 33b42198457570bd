#include "os-awareness/linux/linux.h"

#include <algorithm>

#include "os-awareness/linux/btf.h"
#include "os-awareness/linux/constants.h"
#include "os-awareness/linux/invariants.h"
#include "os-awareness/linux/kernel_btf.h"
#include "os-awareness/linux/kernel_image.h"
#include "os-awareness/linux/kernel_symbols.h"
#include "os-awareness/linux/module_code.h"
#include "os-awareness/linux/module_symbols.h"
#include "os-awareness/linux/modules.h"
#include "os-awareness/linux/percpu.h"
#include "os-awareness/linux/printk.h"
#include "os-awareness/linux/processes.h"
#include "os-awareness/linux/running.h"
#include "os-awareness/linux/saved_frame.h"
#include "os-awareness/linux/struct_layout.h"
#include "os-awareness/linux/tasks.h"
#include "os-awareness/linux/unwind.h"
#include "os-awareness/linux/user_registers.h"

namespace exo::os {
namespace {

constexpr std::size_t shown_problems = 100;

std::string release_of(const std::string& banner) {
    constexpr std::string_view prefix = "Linux version ";
    if (!banner.starts_with(prefix)) return {};
    return banner.substr(prefix.size(), banner.find(' ', prefix.size()) - prefix.size());
}

class Linux final : public OsAwareness {
public:
    Linux(const ProbeContext& context, KernelImage image)
        : memory_(&context.memory), image_(std::move(image)) {
        read_types();
        modules_.emplace(image_, btf_ ? &*btf_ : nullptr);
        module_code_.emplace(image_, *modules_);
        if (btf_) processes_.emplace(*memory_, image_, *btf_);
        find_layout();
        add_findings();
    }

    [[nodiscard]] std::string_view name() const override { return "linux"; }
    [[nodiscard]] std::string version() const override { return release_of(image_.banner); }
    [[nodiscard]] std::span<const Finding> findings() const override { return image_.findings; }
    [[nodiscard]] std::span<const Task> tasks() const override { return tasks_; }
    [[nodiscard]] std::span<const std::string> problems() const override { return problems_; }
    [[nodiscard]] AddressSpace& kernel_space() override { return *image_.space; }
    [[nodiscard]] const SymbolTable& symbols() const override { return image_.symbols; }
    std::optional<Place> locate(VirtualAddress address) override;
    std::optional<VirtualAddress> find_symbol(std::string_view name) override {
        const auto found = image_.symbols.find(name);
        return found ? found : module_code_->find(name);
    }
    [[nodiscard]] std::uint64_t slide() const override { return image_.slide; }
    Result<std::vector<std::byte>> build_id() override { return kernel_build_id(image_); }
    [[nodiscard]] std::string symbol_file_name() const override { return "vmlinux-" + version(); }
    Result<std::vector<std::string>> write_symbol_file(ByteSink& sink, std::uint64_t moved) override {
        return write_kernel_symbols(image_, btf_ ? &*btf_ : nullptr, moved, sink);
    }
    Modules modules() override { return modules_->read(); }
    Result<std::vector<std::string>> write_module_file(const Module& module, ByteSink& sink) override;

    Result<void> refresh(std::span<const RegisterSet> vcpus) override;
    std::optional<Task> current_task(const RegisterSet& registers, VcpuId vcpu) override;
    Result<KernelLog> kernel_log() override {
        return read_kernel_log({*image_.space, image_.symbols, btf_ ? &*btf_ : nullptr,
                                image_.vmcoreinfo ? &*image_.vmcoreinfo : nullptr});
    }
    Processes* processes() override { return processes_ ? &*processes_ : nullptr; }
    Result<RegisterSet> saved_registers(const Task& task) override;
    Result<UserRegisters> user_registers(const Task& task, const RegisterSet* vcpu) override;
    Backtrace backtrace(const RegisterSet& registers) override;
    Result<std::uint64_t> per_cpu_offset(std::uint32_t cpu) override {
        return TRY(per_cpu()).get().offset_of(cpu);
    }
    Result<VirtualAddress> per_cpu_variable(std::string_view symbol) override {
        return TRY(per_cpu()).get().variable(symbol);
    }
    Result<VirtualAddress> per_cpu_variable(VirtualAddress address) override {
        return TRY(per_cpu()).get().variable(address);
    }
    Result<std::unique_ptr<AddressSpace>> task_space(const Task& task) override;

private:
    void read_types();
    void find_layout();
    void add_findings();
    void add_tasks_finding();
    void add_boot_finding();
    void find(std::string what, std::string value, std::string how);
    [[nodiscard]] Result<void> check_still_there(std::span<const RegisterSet> vcpus);
    [[nodiscard]] bool maps_banner(const RegisterSet& registers);
    [[nodiscard]] RunningTasks running() {
        return {*per_cpu_, *list_, *image_.space, [this](std::uint64_t mm) { return root_of(mm); }};
    }
    void publish();
    [[nodiscard]] Result<std::reference_wrapper<PerCpu>> per_cpu() {
        if (!per_cpu_)
            return fail(Errc::unsupported, "where this kernel's structures have their fields is not known");
        return *per_cpu_;
    }
    [[nodiscard]] Result<PhysicalAddress> root_of(std::uint64_t mm);
    // Of the snapshot, or of current_task(); null if it is in neither.
    [[nodiscard]] const TaskRecord* record_of(const Task& task) const;
    // It runs on a CPU, of which nobody knows which vCPU it is.
    [[nodiscard]] bool runs_unseen(const TaskRecord& record) const;
    [[nodiscard]] bool in_image(VirtualAddress address) const {
        return address >= image_.start && address < image_.end;
    }

    PhysicalMemory* memory_;
    KernelImage image_;
    std::optional<Btf> btf_;
    std::string btf_found_by_;
    std::string no_btf_;  // why there is none
    StructLayout layout_;
    std::optional<PerCpu> per_cpu_;
    std::optional<TaskList> list_;
    std::optional<SavedFrames> frames_;
    std::optional<UserRegisterReader> user_registers_;
    bool xsave_ = false;                   // the kernel uses XSAVE
    std::optional<Result<OrcTable>> orc_;  // read at the first backtrace
    std::optional<ModuleList> modules_;
    std::optional<ModuleCode> module_code_;
    std::optional<LinuxProcesses> processes_;
    std::vector<VcpuTask> current_;   // by vCPU
    std::optional<TaskRecord> told_;  // by the last current_task(), since refresh()
    const RegisterLayout* register_layout_ = &x86::layout();

    std::vector<Task> tasks_;
    std::vector<std::string> problems_;
};

void Linux::read_types() {
    auto found = read_kernel_btf(image_);
    if (found) {
        btf_ = std::move(found->btf);
        btf_found_by_ = std::move(found->found_by);
    } else {
        no_btf_ = found.error().message;
    }
}

// Where the fields are and what stands on it. Without types this can fail early in boot and succeed later.
void Linux::find_layout() {
    const auto symbol = image_.symbols.find("init_task");
    std::uint64_t init_task = symbol ? raw(*symbol) : 0;
    if (btf_) {
        layout_ = layout_from_btf(*btf_);
        if (init_task == 0 && layout_.usable()) init_task = find_init_task(image_, layout_);
    } else if (init_task != 0) {
        layout_ = layout_from_invariants(image_, init_task);
    }
    if (init_task == 0) layout_.missing.emplace_back("no symbol init_task");
    if (!layout_.usable()) return;
    per_cpu_.emplace(image_, btf_ ? &*btf_ : nullptr, layout_);
    list_.emplace(image_, layout_, init_task);
    frames_.emplace(image_, layout_);
    user_registers_.emplace(*image_.space, btf_ ? &*btf_ : nullptr, layout_);
}

Result<std::vector<std::string>> Linux::write_module_file(const Module& module, ByteSink& sink) {
    auto parts = TRY(modules_->parts_of(module));
    return write_module_symbols(image_, btf_ ? &*btf_ : nullptr, module_code_->orc_layout(), module,
                                std::move(parts), sink);
}

// What the image's own findings do not say already.
void Linux::find(std::string what, std::string value, std::string how) {
    if (std::ranges::find(image_.findings, what, &Finding::what) != image_.findings.end()) return;
    image_.findings.push_back({std::move(what), std::move(value), std::move(how)});
}

void Linux::add_findings() {
    find("os", "linux", "linux_banner");
    find("version", version(), "linux_banner");
    find("slide", hex(image_.slide), "start of the image");
    find("linux_banner", hex(image_.banner_address), "symbol, and its text read through the kernel's tables");
    find("paging_levels", image_.mode == x86::PagingMode::levels5 ? "5" : "4", "CR4.LA57");
    find("kallsyms", std::to_string(image_.symbols.by_address().size()) + " symbols", "tables in the image");
    if (btf_) {
        find("btf", std::to_string(btf_->last_id()) + " types",
             btf_->incomplete().empty() ? btf_found_by_
                                        : btf_found_by_ + ", not all of it: " + btf_->incomplete());
    } else {
        find("btf", "none", no_btf_);
    }
    const auto btf = btf_ ? Result<const Btf*>{&*btf_} : fail(Errc::not_found, no_btf_);
    for (auto& finding : kernel_symbol_findings(image_, btf)) image_.findings.push_back(std::move(finding));
    add_tasks_finding();
    add_boot_finding();
}

// While a kernel boots, much of what is looked for is not there yet: said once, and taken back.
void Linux::add_boot_finding() {
    std::erase_if(image_.findings, [](const Finding& f) { return f.what == "boot"; });
    // enum system_states (include/linux/kernel.h): SYSTEM_BOOTING has always been 0.
    const auto symbol = image_.symbols.find("system_state");
    const auto state = symbol ? image_.space->read_value<std::uint32_t>(*symbol) : fail(Errc::not_found, "");
    if (state && *state == 0) {
        find("boot", "early", "system_state SYSTEM_BOOTING: tasks and per-CPU data are not all set up yet");
    } else if (!state && !image_.own_root) {
        find("boot", "early", "the kernel does not run on its own page tables yet, or they were not found");
    }
}

void Linux::add_tasks_finding() {
    std::erase_if(image_.findings, [](const Finding& f) { return f.what == "tasks"; });
    if (list_) {
        std::string how = "init_task, structures by " + layout_.source;
        for (const auto& line : per_cpu_->missing()) how += "; " + line;
        find("tasks", "known", std::move(how));
    } else {
        std::string why = btf_ ? "" : "no BTF to tell where task_struct has its fields";
        for (const auto& line : layout_.missing) why += (why.empty() ? "" : "; ") + line;
        find("tasks", "unknown", std::move(why));
    }
}

bool Linux::maps_banner(const RegisterSet& registers) {
    const auto mode = x86::paging_mode(registers);
    const auto cr3 = registers.get(x86::cr3);
    const auto own = image_.space->translate(image_.banner_address);
    if (!own || !mode || !cr3 || *mode != image_.mode) return false;
    // The second: the kernel's half of the tables, which KPTI takes away from user mode.
    for (const auto root : {*cr3 & cr3_address, *cr3 & cr3_address & ~kpti_user_bit}) {
        PageTables tables{*memory_, PhysicalAddress{root}, *mode, image_.encryption_mask};
        const auto theirs = tables.translate(image_.banner_address);
        if (theirs && theirs->physical == own->physical) return true;
    }
    return false;
}

Result<void> Linux::check_still_there(std::span<const RegisterSet> vcpus) {
    image_.space->forget();
    if (!still_there(image_)) {
        return fail(Errc::not_found, "the banner of " + version() + " is gone from " +
                                         hex(image_.banner_address) + ": reset or replaced");
    }
    // A reset leaves RAM as it was: the vCPUs must use the kernel, too. One is enough, others may be
    // parked in firmware.
    const auto known = [](const RegisterSet& r) { return r.available(x86::cr3); };
    if (std::ranges::any_of(vcpus, known) &&
        std::ranges::none_of(vcpus, [&](const RegisterSet& r) { return maps_banner(r); })) {
        return fail(Errc::not_found, "no vCPU has " + version() + " mapped any more: reset or replaced");
    }
    return {};
}

Result<void> Linux::refresh(std::span<const RegisterSet> vcpus) {
    problems_.clear();
    tasks_.clear();
    current_.clear();
    told_.reset();
    module_code_->guest_ran();
    CHECK_OK(check_still_there(vcpus));
    add_boot_finding();
    if (!vcpus.empty()) register_layout_ = &vcpus.front().layout();
    xsave_ = uses_xsave(vcpus);
    if (!list_ && !btf_) {
        layout_ = {};
        find_layout();
        add_tasks_finding();
    }
    if (!list_) {
        problems_.emplace_back("tasks are not known: " +
                               (layout_.missing.empty() ? std::string{} : layout_.missing.front()));
        return {};
    }
    per_cpu_->refresh(problems_);
    list_->refresh(*per_cpu_, problems_);
    current_ = running().all(vcpus, problems_);
    publish();
    if (problems_.size() > shown_problems) {
        const auto more = problems_.size() - shown_problems;
        problems_.resize(shown_problems);
        problems_.push_back("and " + std::to_string(more) + " more");
    }
    return {};
}

void Linux::publish() {
    const auto size = per_cpu_->stack_size();
    tasks_.reserve(list_->records().size());
    for (const auto& record : list_->records()) {
        Task task = task_of(record, list_->find(record.leader));
        const auto it = std::ranges::find(current_, record.address, &VcpuTask::task);
        if (it != current_.end()) task.vcpu = static_cast<VcpuId>(it - current_.begin());
        if (!task.vcpu && task.state != 'R') task.wchan = VirtualAddress{frames_->wchan(record, size)};
        tasks_.push_back(std::move(task));
    }
}

std::optional<Task> Linux::current_task(const RegisterSet& registers, VcpuId vcpu) {
    module_code_->guest_ran();
    told_.reset();
    if (!list_ || !check_still_there({&registers, 1})) return std::nullopt;
    told_ = running().one(registers, vcpu, current_);
    if (!told_) return std::nullopt;
    const auto leader =
        told_->leader != told_->address ? list_->read(told_->leader) : Result<TaskRecord>{*told_};
    Task task = task_of(*told_, leader ? &*leader : nullptr);
    task.vcpu = vcpu;
    return task;
}

bool Linux::runs_unseen(const TaskRecord& record) const {
    return record.on_cpu && std::ranges::any_of(per_cpu_->cpus(), [&](const Cpu& cpu) {
               return cpu.current == record.address &&
                      std::ranges::none_of(current_, [&](const VcpuTask& v) { return v.cpu == cpu.number; });
           });
}

Result<RegisterSet> Linux::saved_registers(const Task& task) {
    const auto* record = list_ ? list_->find(raw(task.address)) : nullptr;
    if (record == nullptr) {
        return fail(Errc::no_such_thread, "no task at " + hex(task.address) + " any more");
    }
    const auto running = [&](const VcpuTask& v) { return v.task == record->address; };
    if (std::ranges::any_of(current_, running)) {
        return fail(Errc::bad_request,
                    "task " + std::to_string(task.tid) + " runs: a vCPU has its registers");
    }
    if (runs_unseen(*record)) {
        return fail(Errc::bad_data, "task " + std::to_string(task.tid) + " runs on CPU " +
                                        std::to_string(record->cpu) +
                                        ", and which vCPU that is could not be told");
    }
    return frames_->registers(*record, per_cpu_->stack_size(), *register_layout_);
}

std::optional<Place> Linux::locate(VirtualAddress address) {
    const auto* code = in_image(address) ? nullptr : module_code_->at(address);
    if (code == nullptr && !in_image(address)) return std::nullopt;
    const auto& symbols = code != nullptr ? code->symbols : image_.symbols;
    const auto found = symbols.locate(address);
    if (!found) return std::nullopt;
    return Place{std::string{found->name}, found->offset,
                 code != nullptr ? code->module.name : std::string{}};
}

Backtrace Linux::backtrace(const RegisterSet& registers) {
    if (!orc_) orc_ = read_kernel_orc(*image_.space, image_.symbols);
    const Unwinder unwinder{*image_.space, [this](VirtualAddress address) {
                                if (!in_image(address)) return module_code_->rule_at(address);
                                return *orc_ ? (*orc_)->rule_at(image_.start, address) : nullptr;
                            }};
    auto trace = unwinder.unwind(registers);
    if (!trace.broken.empty() && !*orc_) trace.broken = orc_->error().message;
    return trace;
}

Result<PhysicalAddress> Linux::root_of(std::uint64_t mm) {
    if (!layout_.mm.pgd) return fail(Errc::unsupported, "BTF has no mm_struct.pgd");
    const auto pgd = TRY(image_.space->read_value<std::uint64_t>(VirtualAddress{mm + layout_.mm.pgd.offset}));
    return TRY(image_.space->translate(VirtualAddress{pgd})).physical;
}

const TaskRecord* Linux::record_of(const Task& task) const {
    if (told_ && told_->address == raw(task.address)) return &*told_;
    return list_ ? list_->find(raw(task.address)) : nullptr;
}

Result<UserRegisters> Linux::user_registers(const Task& task, const RegisterSet* vcpu) {
    const auto* record = record_of(task);
    if (record == nullptr || !user_registers_)
        return fail(Errc::no_such_thread, "no task at " + hex(task.address) + " any more");
    if (vcpu == nullptr && runs_unseen(*record))
        return fail(Errc::bad_data, record->comm + " runs, and on which vCPU could not be told");
    const auto owner = vcpu != nullptr ? fpu_owner_on(record->cpu, *per_cpu_, *image_.space) : std::nullopt;
    return user_registers_->read(*record, {per_cpu_->stack_size(), vcpu, xsave_, owner});
}

Result<std::unique_ptr<AddressSpace>> Linux::task_space(const Task& task) {
    const auto* record = record_of(task);
    if (record == nullptr) {
        return fail(Errc::no_such_thread, "no task at " + hex(task.address) + " any more");
    }
    std::unique_ptr<AddressSpace> user;
    if (record->mm != 0) {
        user = std::make_unique<PageTables>(*memory_, TRY(root_of(record->mm)), image_.mode,
                                            image_.encryption_mask);
    }
    return std::make_unique<SplitAddressSpace>(*image_.space, std::move(user));
}

}  // namespace

std::unique_ptr<OsAwareness> linux_probe(const ProbeContext& context, ProbeFailure& failure) {
    auto image = find_kernel_image(context, failure);
    if (!image) return nullptr;
    return std::make_unique<Linux>(context, std::move(*image));
}

}  // namespace exo::os
