#include "os-awareness/linux/percpu.h"

#include <algorithm>
#include <bit>

#include "os-awareness/linux/constants.h"

namespace exo::os {
namespace {

constexpr std::uint32_t max_cpus = 8192;           // CONFIG_NR_CPUS_RANGE_END of x86-64
constexpr std::uint64_t usual_stack_size = 16384;  // THREAD_SIZE without KASAN

bool plausible_stack_size(std::uint64_t size) {
    return std::has_single_bit(size) && size >= 4096 && size <= 256UL * 1024;
}

}  // namespace

PerCpu::PerCpu(KernelImage& image, const Btf* btf, const StructLayout& layout)
    : image_(&image),
      btf_(btf),
      layout_(&layout),
      curr_(layout.rq.curr),
      idle_(layout.rq.idle),
      task_cpu_(layout.task.cpu) {
    // Where the section of BTF lies follows from any variable of it that has a symbol. 0 before 6.15
    // (01157ddc58dc: per-CPU symbols had been absolute, from 0).
    for (const auto* anchor : {"runqueues", "cpu_tss_rw", "pcpu_hot", "current_task", "cpu_number"}) {
        const auto address = image.symbols.find(anchor);
        const auto variable = btf != nullptr ? btf->per_cpu_variable(anchor) : std::nullopt;
        if (!address || !variable) continue;
        section_ = raw(*address) - variable->offset;
        break;
    }
    runqueues_ = symbol("runqueues");
    current_task_ = symbol("current_task");
    cpu_number_ = symbol("cpu_number");
    gdt_page_ = symbol("gdt_page");
    top_of_stack_ = symbol("cpu_current_top_of_stack");
    if (const auto hot = symbol("pcpu_hot"); hot && layout.pcpu_hot.current_task) {
        current_task_ = *hot + layout.pcpu_hot.current_task.offset;
        if (layout.pcpu_hot.cpu_number) cpu_number_ = *hot + layout.pcpu_hot.cpu_number.offset;
        if (layout.pcpu_hot.top_of_stack) top_of_stack_ = *hot + layout.pcpu_hot.top_of_stack.offset;
    }
    if (!runqueues_) missing_.emplace_back("no per-CPU symbol runqueues: idle tasks are not known");
    if (!current_task_ && !runqueues_) {
        missing_.emplace_back("no current_task, pcpu_hot or runqueues: tasks on vCPUs only by their stacks");
    }
}

std::optional<std::uint64_t> PerCpu::symbol(std::string_view name) const {
    if (section_) {
        if (const auto variable = btf_->per_cpu_variable(name)) return *section_ + variable->offset;
    }
    const auto found = image_->symbols.find(name);
    return found ? std::optional{raw(*found)} : std::nullopt;
}

std::optional<std::uint64_t> PerCpu::value(std::uint64_t address, std::uint32_t size) const {
    std::uint64_t result = 0;
    const auto out = std::as_writable_bytes(std::span{&result, 1}).first(size);
    if (!image_->space->read(VirtualAddress{address}, out)) return std::nullopt;
    return result;
}

std::uint32_t PerCpu::count_cpus() const {
    const auto symbol_address = image_->symbols.find("nr_cpu_ids");
    const auto count = symbol_address ? value(raw(*symbol_address), 4) : std::nullopt;
    // A macro where it is known at compile time (b48d7eb3a46f and NR_CPUS=1): then as far as areas go.
    return count && *count > 0 && *count <= max_cpus ? static_cast<std::uint32_t>(*count) : max_cpus;
}

std::optional<Cpu> PerCpu::read_cpu(std::uint32_t number, std::uint64_t offset,
                                    std::vector<std::string>& problems) const {
    if (cpu_number_) {
        // The variable is filled together with the areas: in early boot all of them are CPU 0's.
        const auto told = value(*cpu_number_ + offset, 4);
        if (!told) {
            problems.push_back("per-CPU area of CPU " + std::to_string(number) + " at " + hex(offset) +
                               " cannot be read");
            return std::nullopt;
        }
        if (*told != number) return std::nullopt;
    }
    Cpu cpu{.number = number, .offset = offset};
    if (current_task_) cpu.current = value(*current_task_ + offset).value_or(0);
    if (runqueues_ && curr_) cpu.curr = value(*runqueues_ + offset + curr_.offset).value_or(0);
    if (runqueues_ && idle_) cpu.idle = value(*runqueues_ + offset + idle_.offset).value_or(0);
    if (gdt_page_) {
        if (const auto page = image_->space->translate(VirtualAddress{*gdt_page_ + offset})) {
            cpu.gdt = page->physical;
        }
    }
    return cpu;
}

std::optional<Cpu> PerCpu::read_again(const Cpu& cpu) const {
    std::vector<std::string> problems;  // who asks looks at everything then, and finds them again
    const auto now = read_cpu(cpu.number, cpu.offset, problems);
    return now && now->gdt == cpu.gdt ? now : std::nullopt;
}

void PerCpu::refresh(std::vector<std::string>& problems) {
    cpus_.clear();
    const auto table = image_->symbols.find("__per_cpu_offset");
    if (!table) {
        // Without SMP per-CPU variables are ordinary ones.
        if (auto cpu = read_cpu(0, 0, problems)) cpus_.push_back(*cpu);
    } else {
        std::vector<std::uint64_t> offsets(count_cpus());
        const auto bytes = std::as_writable_bytes(std::span{offsets});
        const auto got = image_->space->read_some(*table, bytes);
        if (!got) problems.push_back("reading __per_cpu_offset: " + got.error().message);
        offsets.resize(got.value_or(0) / sizeof(std::uint64_t));
        for (std::uint32_t i = 0; i < offsets.size(); ++i) {
            // CPUs that cannot exist keep the initial value, the boot CPU's before it moved.
            if (i > 0 && offsets[i] == offsets[0]) continue;
            if (cpu_number_ && i > 0 && offsets.size() == max_cpus && (offsets[i] & kernel_half) == 0) break;
            if (auto cpu = read_cpu(i, offsets[i], problems)) cpus_.push_back(*cpu);
        }
    }
    if (!layout_->rq.idle) infer_idle();
    if (!layout_->task.cpu) infer_task_cpu();
    choose_task_cpu();
    choose_stack_size();
}

// Without types: rq->idle points to the task swapper/N on each CPU N. rq->curr, which does so while the CPU
// is idle, comes before it, rq->stop behind.
void PerCpu::infer_idle() {
    constexpr std::uint32_t rq_bytes = 8192, neighbours = 24;
    const auto is_idle = [&](const Cpu& cpu, std::uint32_t offset) {
        const auto task = value(*runqueues_ + cpu.offset + offset);
        if (!task || (*task & kernel_half) == 0) return false;
        const auto name = image_->space->read_string(VirtualAddress{*task + layout_->task.comm.offset}, 16);
        return name && *name == "swapper/" + std::to_string(cpu.number);
    };
    if (idle_ || !runqueues_ || cpus_.empty()) return;
    for (std::uint32_t at = 0; at < rq_bytes && (!idle_ || at <= idle_.offset + neighbours); at += 8) {
        if (std::ranges::all_of(cpus_, [&](const Cpu& cpu) { return is_idle(cpu, at); })) idle_ = {at, 8};
    }
    for (auto& cpu : cpus_) {
        if (idle_) cpu.idle = value(*runqueues_ + cpu.offset + idle_.offset).value_or(0);
    }
}

// Without types: the first number in each idle task that is its CPU's. With one CPU there is nothing to see.
void PerCpu::infer_task_cpu() {
    if (task_cpu_ || cpus_.size() < 2) return;
    const auto end = layout_->task.stack.offset + 128;
    for (std::uint32_t at = 0; at < end && !task_cpu_; at += 4) {
        const auto is_number = [&](const Cpu& cpu) {
            return cpu.idle != 0 && value(cpu.idle + at, 4) == cpu.number;
        };
        if (std::ranges::all_of(cpus_, is_number)) task_cpu_ = {at, 4};
    }
}

Result<std::uint64_t> PerCpu::offset_of(std::uint32_t cpu) const {
    const auto it = std::ranges::find(cpus_, cpu, &Cpu::number);
    if (it != cpus_.end()) return it->offset;
    return fail(Errc::not_found, "no CPU " + std::to_string(cpu) + ", or its per-CPU area is not set up");
}

Result<VirtualAddress> PerCpu::variable(std::string_view name) const {
    const auto address = image_->symbols.find(name);
    if (!address) return fail(Errc::not_found, "no symbol " + std::string{name});
    return variable(*address);
}

Result<VirtualAddress> PerCpu::variable(VirtualAddress address) const {
    const auto start = image_->symbols.find("__per_cpu_start");
    const auto end = image_->symbols.find("__per_cpu_end");
    if (!start || !end) {
        return fail(Errc::not_found,
                    "no symbol __per_cpu_start or __per_cpu_end: a kernel without data symbols");
    }
    // A debugger that loads a whole vmlinux at the slide moves these too, though before 6.15 they stay.
    for (const auto candidate : {address, VirtualAddress{raw(address) - image_->slide}}) {
        if (candidate >= *start && candidate < *end) return candidate;
    }
    return fail(Errc::not_found, "no per-CPU variable of the kernel is at " + hex(address));
}

void PerCpu::choose_task_cpu() {
    const auto& task = layout_->task;
    if (task.cpu) task_cpu_ = task.cpu;
    if (!task.cpu_alternative || task.cpu_alternative.offset == task.cpu.offset) return;
    // Both exist: RHEL 9's 5.14 keeps one of them for its ABI only. An idle task never leaves its CPU.
    for (const auto& cpu : cpus_) {
        if (cpu.number == 0 || cpu.idle == 0) continue;
        const auto first = value(cpu.idle + task.cpu.offset, 4);
        const auto second = value(cpu.idle + task.cpu_alternative.offset, 4);
        if (first != cpu.number && second == cpu.number) task_cpu_ = task.cpu_alternative;
    }
}

std::uint64_t PerCpu::stack_size() const { return stack_size_ != 0 ? stack_size_ : usual_stack_size; }

void PerCpu::choose_stack_size() {
    if (stack_size_ != 0) return;
    // 8f69cba096b5 (6.10) renamed them.
    for (const auto& [begin, end] : {std::pair{"__start_init_stack", "__end_init_stack"},
                                     std::pair{"__start_init_task", "__end_init_task"}}) {
        const auto from = image_->symbols.find(begin);
        const auto to = image_->symbols.find(end);
        if (from && to && plausible_stack_size(raw(*to) - raw(*from))) {
            stack_size_ = raw(*to) - raw(*from);
            return;
        }
    }
    for (const auto& cpu : cpus_) {
        if (!top_of_stack_ || cpu.current == 0) break;
        const auto top = value(*top_of_stack_ + cpu.offset);
        const auto stack = value(cpu.current + layout_->task.stack.offset);
        // Some padding may lie above (TOP_OF_KERNEL_STACK_PADDING).
        const auto size = top && stack && *top > *stack ? std::bit_ceil(*top - *stack) : 0;
        if (plausible_stack_size(size)) {
            stack_size_ = size;
            return;
        }
    }
    // Left open: a later stop may tell more.
}

}  // namespace exo::os
