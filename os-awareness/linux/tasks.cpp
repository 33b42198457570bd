#include "os-awareness/linux/tasks.h"

#include <algorithm>
#include <array>
#include <bit>

#include "os-awareness/linux/constants.h"
#include "os-awareness/linux/pid_table.h"

namespace exo::os {
namespace {

constexpr std::uint32_t pid_max_limit = 1U << 22;  // PID_MAX_LIMIT, include/linux/threads.h

// Bits of __state | exit_state, include/linux/sched.h: the same since 4.14 (8ef9925b02c2), the first six
// since 3.14.
constexpr std::uint64_t task_report = 0x7f;
constexpr std::uint64_t task_dead = 0x80;           // set by do_task_dead(), which never returns
constexpr std::uint64_t task_idle = 0x402;          // TASK_UNINTERRUPTIBLE | TASK_NOLOAD
constexpr std::uint64_t task_rtlock_wait = 0x1000;  // 25795ef6299f (5.16)
constexpr std::uint64_t task_frozen = 0x8000;       // f5d39b020809 (6.1)
constexpr std::string_view letters = "RSDTtXZP";    // by the highest of the bits of task_report

// A guest that is torn up has more to say than anybody wants to read.
constexpr std::size_t max_problems = 64;

void say(std::vector<std::string>& problems, std::string text) {
    if (problems.size() < max_problems) {
        problems.push_back(std::move(text));
    } else if (problems.size() == max_problems) {
        problems.emplace_back("and more");
    }
}

std::string describe(const TaskRecord& task) { return std::to_string(task.tid) + " (" + task.comm + ")"; }

ListLinks links_at(ConstBytes bytes, Field node) {
    return {Field{node.offset, 8}.in(bytes).value_or(0), Field{node.offset + 8, 8}.in(bytes).value_or(0)};
}

}  // namespace

char state_letter(std::uint64_t state, std::uint64_t exit_state) {
    const auto all = state | exit_state;
    if ((all & task_idle) == task_idle) return 'I';
    // The kernel shows both as uninterruptible, since users know no other name for them.
    if ((all & (task_rtlock_wait | task_frozen)) != 0) return 'D';
    return letters.at(std::bit_width(all & task_report));
}

std::string printable(ConstBytes bytes) {
    std::string text;
    for (const auto byte : bytes) {
        const auto c = std::to_integer<unsigned char>(byte);
        if (c == 0) break;
        text.push_back(c >= 0x20 && c < 0x7f ? static_cast<char>(c) : '?');
    }
    return text;
}

bool TaskRecord::kernel_thread() const { return idle || (flags & pf_kthread) != 0; }
char TaskRecord::state_letter() const { return os::state_letter(state, exit_state); }

Task task_of(const TaskRecord& record, const TaskRecord* leader) {
    return {.address = VirtualAddress{record.address},
            .tid = record.tid,
            .tgid = record.tgid,
            .cpu = record.cpu,
            .comm = record.comm,
            .process = leader != nullptr ? leader->comm : record.comm,
            .state = record.state_letter(),
            .idle = record.idle,
            .kernel_thread = record.kernel_thread(),
            .ended = (record.state & task_dead) != 0,
            .vcpu = std::nullopt,
            .memory = VirtualAddress{record.mm}};
}

Result<TaskRecord> TaskReader::read(std::uint64_t address) {
    const auto not_a_task = [&](const std::string& why) {
        return fail(Errc::bad_data, "no task at " + hex(address) + ": " + why);
    };
    if ((address & kernel_half) == 0 || address % 8 != 0) return not_a_task("not a kernel address");
    buffer_.resize(layout_->task.read_size);
    CHECK_OK(space_->read(VirtualAddress{address}, buffer_));
    const auto& f = layout_->task;
    const auto number = [&](const Field& field) { return field.in(buffer_).value_or(0); };

    TaskRecord task{.address = address};
    const auto tid = number(f.pid);
    const auto tgid = number(f.tgid);
    if (tid > pid_max_limit || tgid > pid_max_limit) return not_a_task("its pid is " + std::to_string(tid));
    task.tid = static_cast<std::uint32_t>(tid);
    task.tgid = static_cast<std::uint32_t>(tgid);
    task.stack = number(f.stack);
    if (task.stack != 0 && ((task.stack & kernel_half) == 0 || task.stack % 4096 != 0)) {
        return not_a_task("its stack is " + hex(task.stack));
    }
    task.cpu = static_cast<std::uint32_t>(number(cpu_));
    task.state = number(f.state);
    task.exit_state = number(f.exit_state);
    task.flags = number(f.flags);
    task.on_cpu = number(f.on_cpu) != 0;
    // Only what has exited is without a stack (68f24b08ee89, 4.9).
    if (task.stack == 0 && task.exit_state == 0) return not_a_task("alive without a stack");
    task.mm = number(f.mm);
    task.signal = number(f.signal);
    task.leader = number(f.group_leader);
    task.sp = number(f.sp);
    task.fsbase = number(f.fsbase);
    task.gsbase = number(f.gsbase);
    task.tasks = links_at(buffer_, f.tasks);
    task.thread_node = links_at(buffer_, f.thread_node);
    const auto comm = ConstBytes{buffer_}.subspan(f.comm.offset);
    task.comm = printable(comm.first(std::min({comm.size(), std::size_t{f.comm.size}, comm_bytes})));
    return task;
}

TaskList::TaskList(KernelImage& image, const StructLayout& layout, std::uint64_t init_task)
    : image_(&image), layout_(&layout), init_task_(init_task), reader_(*image.space, layout) {}

const TaskRecord* TaskList::find(std::uint64_t address) const {
    const auto it = by_address_.find(address);
    return it != by_address_.end() ? &records_[it->second] : nullptr;
}

const TaskRecord* TaskList::add(std::uint64_t address, Result<TaskRecord>&& record) {
    if (!record || records_.size() >= max_tasks) return nullptr;
    by_address_.emplace(address, records_.size());
    records_.push_back(std::move(*record));
    return &records_.back();
}

const TaskRecord* TaskList::add_unlisted(std::uint64_t address) {
    if (const auto* known = find(address)) return known;
    return add(address, reader_.read(address));
}

// What exits is taken off its list: the neighbours do not lead back to it any more.
bool TaskList::is_linked(const TaskRecord& task) {
    const bool leads = task.tid == task.tgid;
    const auto node = task.address + (leads ? layout_->task.tasks : layout_->task.thread_node).offset;
    const auto next = (leads ? task.tasks : task.thread_node).next;
    const auto links = image_->space->read_value<ListLinks>(VirtualAddress{next});
    return links && links->prev == node;
}

std::optional<TaskRecord> TaskList::read_running(std::uint64_t address, const Cpu& cpu) {
    auto record = reader_.read(address);
    if (!record || record->cpu != cpu.number) return std::nullopt;
    record->idle = record->tid == 0 && address == cpu.idle;
    if (record->idle || record->tid == record->tgid) record->leader = address;
    // Who leads its group would take the lists to find.
    if (record->leader == 0 || (!record->idle && (record->tid == 0 || !is_linked(*record)))) {
        return std::nullopt;
    }
    return std::move(*record);
}

void TaskList::refresh(const PerCpu& per_cpu, std::vector<std::string>& problems) {
    records_.clear();
    by_address_.clear();
    steps_ = 0;
    reader_.set_cpu_field(per_cpu.task_cpu());
    add_idle(per_cpu, problems);
    walk_leaders(problems);
    compare_with_pid_table(problems);
    if (records_.size() >= max_tasks) {
        say(problems, "more than " + std::to_string(max_tasks) + " tasks: the rest is left out");
    }
}

void TaskList::add_idle(const PerCpu& per_cpu, std::vector<std::string>& problems) {
    std::vector<std::uint64_t> idle{init_task_};
    for (const auto& cpu : per_cpu.cpus()) {
        if (cpu.idle != 0 && std::ranges::find(idle, cpu.idle) == idle.end()) idle.push_back(cpu.idle);
    }
    for (const auto address : idle) {
        auto record = reader_.read(address);
        if (!record) {
            say(problems, "idle task: " + record.error().message);
        } else if (record->tid != 0) {
            say(problems, "idle task at " + hex(address) + " has pid " + std::to_string(record->tid));
        } else {
            record->idle = true;
            record->leader = address;
            add(address, std::move(record));
        }
    }
}

// A guest can have as many thread groups as tasks share one long list of threads.
Result<void> TaskList::spend() {
    if (++steps_ > 4 * max_tasks) return fail(Errc::bad_data, "the lists are longer than any kernel's");
    return {};
}

// Idle tasks, the only ones of pid 0, are on no list.
Result<TaskRecord> TaskList::read_listed(std::uint64_t address) {
    CHECK_OK(spend());
    auto record = TRY(reader_.read(address));
    if (record.tid == 0) return fail(Errc::bad_data, "no task at " + hex(address) + ": its pid is 0");
    return record;
}

void TaskList::walk_leaders(std::vector<std::string>& problems) {
    const auto node = layout_->task.tasks.offset;
    const auto* init = find(init_task_);
    if (init == nullptr) return;  // said by add_idle
    std::unordered_map<std::uint64_t, TaskRecord> leaders;
    const auto links = [&](std::uint64_t at) -> Result<ListLinks> {
        auto record = TRY(read_listed(at - node));
        const auto result = record.tasks;
        record.leader = record.address;
        leaders.emplace(at, std::move(record));
        return result;
    };
    const auto walk = walk_list(init_task_ + node, init->tasks, max_tasks, links);
    if (!walk.broken.empty()) say(problems, "list of tasks: " + walk.broken);
    for (const auto at : walk.nodes) {
        const auto address = at - node;
        if (find(address) == nullptr) add(address, std::move(leaders.at(at)));
        walk_threads(address, problems);
    }
}

void TaskList::walk_threads(std::uint64_t leader_address, std::vector<std::string>& problems) {
    const auto* leader = find(leader_address);
    if (leader == nullptr || leader->signal == 0) return;
    const auto head = leader->signal + layout_->signal.thread_head.offset;
    if (leader->thread_node.next == head && leader->thread_node.prev == head) return;  // alone, as most
    const auto node = layout_->task.thread_node.offset;
    const auto name = describe(*leader);
    const auto head_links = image_->space->read_value<ListLinks>(VirtualAddress{head});
    if (!head_links) {
        say(problems, "threads of " + name + ": " + head_links.error().message);
        return;
    }
    std::unordered_map<std::uint64_t, TaskRecord> threads;
    const auto links = [&](std::uint64_t at) -> Result<ListLinks> {
        CHECK_OK(spend());
        if (const auto* known = find(at - node)) return known->thread_node;
        auto record = TRY(read_listed(at - node));
        const auto result = record.thread_node;
        record.leader = leader_address;
        threads.emplace(at, std::move(record));
        return result;
    };
    const auto walk = walk_list(head, *head_links, max_tasks - std::min(records_.size(), max_tasks), links);
    if (!walk.broken.empty()) say(problems, "threads of " + name + ": " + walk.broken);
    for (const auto at : walk.nodes) {
        const auto it = threads.find(at);
        if (it != threads.end() && find(at - node) == nullptr) add(at - node, std::move(it->second));
    }
}

void TaskList::compare_with_pid_table(std::vector<std::string>& problems) {
    const auto table = image_->symbols.find("init_pid_ns");
    if (!table || !layout_->pid_table.root) return;
    const auto entries = read_pid_table(*image_->space, *layout_, raw(*table), max_tasks, problems);
    if (entries.empty()) return;  // very early, or said why
    std::unordered_map<std::uint64_t, std::uint32_t> in_table;
    for (const auto& entry : entries) in_table.emplace(entry.task, entry.number);
    for (const auto& task : records_) {
        if (!task.idle && !in_table.contains(task.address)) {
            say(problems, "task " + describe(task) + " is listed but not in the pid table");
        }
    }
    for (const auto& entry : entries) {
        if (find(entry.task) != nullptr) continue;
        auto record = reader_.read(entry.task);
        if (!record || record->tid != entry.number) {
            say(problems, "pid table: pid " + std::to_string(entry.number) + ": " +
                              (record ? "task at " + hex(entry.task) + " calls itself " + describe(*record)
                                      : record.error().message));
            continue;
        }
        say(problems, "task " + describe(*record) + " is in the pid table only");
        add(entry.task, std::move(record));
    }
}

}  // namespace exo::os
