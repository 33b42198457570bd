#include "os-awareness/linux/invariants.h"

#include <algorithm>
#include <functional>
#include <set>

#include "os-awareness/linux/constants.h"
#include "os-awareness/linux/list_walk.h"

namespace exo::os {
namespace {

constexpr std::uint32_t task_bytes = 16384;  // more than any task_struct without its FPU state
constexpr std::size_t max_samples = 64;
constexpr std::size_t max_ring = 1U << 16;
constexpr std::uint32_t stack_end_magic = 0x57ac6e9d;  // include/uapi/linux/magic.h
constexpr std::uint32_t sigchld = 17;
constexpr std::uint32_t saved_register_count = 6;
constexpr std::uint64_t max_stack = 65536;  // THREAD_SIZE is 16 KiB, with KASAN 32 KiB

struct Sample {
    std::uint64_t address = 0;
    std::vector<std::byte> bytes;

    [[nodiscard]] std::uint64_t word(std::uint32_t offset) const {
        return Field{offset, 8}.in(bytes).value_or(0);
    }
    [[nodiscard]] std::uint32_t half(std::uint32_t offset) const {
        return static_cast<std::uint32_t>(Field{offset, 4}.in(bytes).value_or(0));
    }
};

class Inference {
public:
    Inference(KernelImage& image, std::uint64_t init_task) : image_(image), init_(read(init_task)) {}

    StructLayout run();

private:
    Sample read(std::uint64_t address) const;
    [[nodiscard]] std::optional<std::uint64_t> word_at(std::uint64_t address) const;
    [[nodiscard]] std::string name_of(std::uint64_t task) const;
    [[nodiscard]] bool is_text(std::uint64_t address) const;

    // The first offset in [begin, end) for which `holds`.
    static std::optional<std::uint32_t> first(std::uint32_t begin, std::uint32_t end, std::uint32_t step,
                                              const std::function<bool(std::uint32_t)>& holds) {
        for (auto at = begin; at < end; at += step) {
            if (holds(at)) return at;
        }
        return std::nullopt;
    }
    [[nodiscard]] bool all(const std::function<bool(const Sample&)>& holds) const {
        return std::ranges::all_of(samples_, holds);
    }

    std::optional<std::uint32_t> find_comm() const;
    std::optional<std::uint32_t> find_tasks();
    std::optional<std::uint32_t> find_pid() const;
    std::optional<std::uint32_t> find_stack() const;
    std::optional<std::uint32_t> find_state() const;
    std::optional<std::uint32_t> find_flags() const;
    std::optional<std::uint32_t> find_mm() const;
    std::optional<std::uint32_t> find_exit_state() const;
    std::optional<std::uint32_t> flags_in_frame(std::uint32_t sp) const;
    std::optional<std::uint32_t> find_sp() const;
    std::optional<std::uint32_t> find_pgd() const;
    void find_threads();
    void find_frame();

    KernelImage& image_;
    Sample init_;
    std::vector<Sample> samples_;  // in the order of the list, without init_task
    StructLayout layout_;
};

Sample Inference::read(std::uint64_t address) const {
    Sample sample{address, std::vector<std::byte>(task_bytes)};
    const auto got = image_.space->read_some(VirtualAddress{address}, sample.bytes);
    sample.bytes.resize(got.value_or(0));
    return sample;
}

std::optional<std::uint64_t> Inference::word_at(std::uint64_t address) const {
    const auto value = image_.space->read_value<std::uint64_t>(VirtualAddress{address});
    return value ? std::optional{*value} : std::nullopt;
}

bool Inference::is_text(std::uint64_t address) const {
    return address >= raw(image_.start) && address < raw(image_.end) &&
           image_.symbols.locate(VirtualAddress{address}).has_value();
}

// INIT_TASK_COMM is "swapper"; init_idle() makes it "swapper/0".
std::optional<std::uint32_t> Inference::find_comm() const {
    using namespace std::string_view_literals;
    for (const auto name : {"swapper/0\0"sv, "swapper\0"sv}) {
        const auto at = as_text(init_.bytes).find(name);
        if (at != std::string_view::npos) return static_cast<std::uint32_t>(at);
    }
    return std::nullopt;
}

// 1 to 15 characters and a NUL. Users may give their tasks any, but hardly an unprintable first one.
std::string Inference::name_of(std::uint64_t task) const {
    const auto name = image_.space->read_string(VirtualAddress{task + layout_.task.comm.offset}, 16);
    const bool good =
        name && !name->empty() && name->size() < 16 && name->front() > 0x20 && name->front() < 0x7f;
    return good ? *name : std::string{};
}

// The ring of tasks with names through the same offset whose second is kthreadd. The tasks of a control
// group make such a ring, too, but one with threads in it and a head that is no task: pids tell.
std::optional<std::uint32_t> Inference::find_tasks() {
    for (std::uint32_t at = 0; at + 16 <= init_.bytes.size(); at += 8) {
        const ListLinks links{init_.word(at), init_.word(at + 8)};
        const auto head = init_.address + at;
        if ((links.next & links.prev & kernel_half) == 0 || links.next == head) continue;
        const auto walk = walk_list(head, links, max_ring, [&](std::uint64_t node) -> Result<ListLinks> {
            if (name_of(node - at).empty()) return fail(Errc::bad_data, "no task");
            return image_.space->read_value<ListLinks>(VirtualAddress{node});
        });
        const auto& ring = walk.nodes;
        if (!walk.broken.empty() || ring.size() < 2 || name_of(ring[1] - at) != "kthreadd") continue;
        samples_.clear();
        for (std::size_t i = 0; i < ring.size(); ++i) {
            // Kernel threads come first, processes last: some of both.
            if (i >= max_samples / 2 && ring.size() - i > max_samples / 2) continue;
            samples_.push_back(read(ring[i] - at));
        }
        if (find_pid()) return at;
    }
    return std::nullopt;
}

// pid and tgid, side by side and equal in leaders of thread groups: 0 in init_task, then 1, 2 and others.
std::optional<std::uint32_t> Inference::find_pid() const {
    return first(0, task_bytes - 8, 4, [&](std::uint32_t at) {
        if (init_.half(at) != 0 || samples_[0].half(at) != 1 || samples_[1].half(at) != 2) return false;
        std::set<std::uint32_t> seen;
        return all([&](const Sample& s) {
            return s.half(at) == s.half(at + 4) && s.half(at) <= 1U << 22 && seen.insert(s.half(at)).second;
        });
    });
}

// Page-aligned, each task's own, and with STACK_END_MAGIC at its lowest address (set_task_stack_end_magic).
// A task that has exited has none.
std::optional<std::uint32_t> Inference::find_stack() const {
    return first(0, task_bytes, 8, [&](std::uint32_t at) {
        std::size_t stacks = 0;
        const auto is_stack = [&](const Sample& s) {
            const auto stack = s.word(at);
            if (stack == 0) return true;
            ++stacks;
            const auto magic =
                (stack & kernel_half) != 0 && stack % 4096 == 0 ? word_at(stack) : std::nullopt;
            return magic && static_cast<std::uint32_t>(*magic) == stack_end_magic;
        };
        return init_.word(at) != 0 && is_stack(init_) && all(is_stack) && stacks > samples_.size() / 2;
    });
}

// It comes before the stack. kthreadd sleeps interruptibly (1), as do most; idle kernel threads are 0x402.
std::optional<std::uint32_t> Inference::find_state() const {
    return first(0, layout_.task.stack.offset, 4, [&](std::uint32_t at) {
        if (init_.half(at) != 0) return false;
        std::size_t asleep = 0;
        const bool possible = all([&](const Sample& s) {
            const auto state = s.half(at);
            if (state == 1 || state == 2 || state == 0x402) ++asleep;
            return state < 0x10000;
        });
        return possible && asleep > samples_.size() / 2;
    });
}

// Kernel threads have PF_KTHREAD, pid 1 does not once it has executed its program.
std::optional<std::uint32_t> Inference::find_flags() const {
    const auto stack = layout_.task.stack.offset;
    return first(stack + 8, stack + 64, 4, [&](std::uint32_t at) {
        const auto has = [&](const Sample& s) { return (s.half(at) & pf_kthread) != 0; };
        return has(init_) && has(samples_[1]) && !has(samples_[0]);
    });
}

// mm and active_mm, side by side: the same in pid 1, mm null in kernel threads. (Their active_mm is lent and
// comes and goes.)
std::optional<std::uint32_t> Inference::find_mm() const {
    const auto& user = samples_[0];
    const auto is_kernel_thread = [&](const Sample& s) {
        return (s.half(layout_.task.flags.offset) & pf_kthread) != 0;
    };
    return first(layout_.task.stack.offset, task_bytes - 8, 8, [&](std::uint32_t at) {
        return (user.word(at) & kernel_half) != 0 && user.word(at) == user.word(at + 8) &&
               user.word(at) % 8 == 0 && init_.word(at) == 0 &&
               all([&](const Sample& s) { return s.word(at) == 0 || !is_kernel_thread(s); });
    });
}

// exit_state, exit_code, exit_signal one after the other; alive, the last is SIGCHLD for what kthreadd and
// fork make, the others 0.
std::optional<std::uint32_t> Inference::find_exit_state() const {
    return first(layout_.task.stack.offset, layout_.task.pid.offset, 4, [&](std::uint32_t at) {
        std::size_t alive = 0;
        const bool possible = all([&](const Sample& s) {
            const auto state = s.half(at);
            const auto signal = s.half(at + 8);
            if (state == 0 && s.half(at + 4) == 0 && signal == sigchld) ++alive;
            return (state == 0 || state == 0x10 || state == 0x20) && (signal == 0 || signal == sigchld);
        });
        return possible && alive > samples_.size() / 2;
    });
}

// struct inactive_task_frame since 4.9: flags in front of it or none, six registers, the return address. How
// many bytes of flags, if `sp` is where tasks keep their stack pointers.
std::optional<std::uint32_t> Inference::flags_in_frame(std::uint32_t sp) const {
    for (const std::uint32_t flags : {0U, 8U}) {
        const auto returns = std::ranges::count_if(samples_, [&](const Sample& s) {
            return s.word(layout_.task.stack.offset) != 0 &&
                   is_text(word_at(s.word(sp) + flags + std::uint64_t{saved_register_count} * 8).value_or(0));
        });
        if (static_cast<std::size_t>(returns) > samples_.size() / 2) return flags;
    }
    return std::nullopt;
}

// thread.sp points into each task's own stack, at a frame that returns into the kernel.
std::optional<std::uint32_t> Inference::find_sp() const {
    const auto stack = layout_.task.stack.offset;
    return first(stack + 8, task_bytes, 8, [&](std::uint32_t at) {
        const auto into_stack = [&](const Sample& s) {
            return s.word(stack) == 0 || (s.word(at) > s.word(stack) &&
                                          s.word(at) - s.word(stack) < max_stack && s.word(at) % 8 == 0);
        };
        return all(into_stack) && flags_in_frame(at);
    });
}

// The page-table root shares the kernel's last entry with the kernel's own.
std::optional<std::uint32_t> Inference::find_pgd() const {
    constexpr std::uint64_t last_entry = std::uint64_t{511} * 8;
    const auto entry_of = [&](std::uint64_t physical) -> std::uint64_t {
        std::uint64_t entry = 0;
        const auto out = std::as_writable_bytes(std::span{&entry, 1});
        return image_.space->physical().read(PhysicalAddress{physical + last_entry}, out) ? entry : 0;
    };
    const auto own = entry_of(raw(image_.root));
    const auto mm = samples_[0].word(layout_.task.mm.offset);
    return first(0, 512, 8, [&](std::uint32_t at) {
        const auto pgd = word_at(mm + at);
        if (!pgd || *pgd % 4096 != 0 || (*pgd & kernel_half) == 0) return false;
        const auto page = image_.space->translate(VirtualAddress{*pgd});
        // All but the accessed bit.
        return page && own != 0 && ((entry_of(raw(page->physical)) ^ own) & ~std::uint64_t{0x20}) == 0;
    });
}

// thread_node of a task without further threads is alone in the ring of its signal_struct's thread_head.
void Inference::find_threads() {
    std::uint32_t head_offset = 0;
    const auto head_of = [&](const Sample& s, std::uint32_t at) -> std::uint64_t {
        const auto head = s.word(at);
        // thread is the last member.
        const bool outside = head < s.address || head - s.address > layout_.task.sp.offset;
        if ((head & kernel_half) == 0 || head % 8 != 0 || !outside || s.word(at + 8) != head) return 0;
        return word_at(head) == s.address + at && word_at(head + 8) == s.address + at ? head : 0;
    };
    const auto signal_before = [&](std::uint32_t node) {
        return first(0, task_bytes, 8, [&](std::uint32_t at) {
            const auto distance = head_of(samples_[1], node) - samples_[1].word(at);
            if (distance == 0 || distance > 128) return false;
            head_offset = static_cast<std::uint32_t>(distance);
            return all([&](const Sample& s) {
                const auto head = head_of(s, node);
                return head == 0 || head - s.word(at) == distance;
            });
        });
    };
    for (std::uint32_t node = 0; node < task_bytes - 8; node += 8) {
        const auto alone =
            std::ranges::count_if(samples_, [&](const Sample& s) { return head_of(s, node) != 0; });
        if (head_of(samples_[1], node) == 0 || static_cast<std::size_t>(alone) <= samples_.size() / 2)
            continue;
        const auto signal = signal_before(node);
        if (!signal) continue;
        layout_.task.thread_node = {node, 16};
        layout_.task.signal = {*signal, 8};
        layout_.signal.thread_head = {head_offset, 16};
        return;
    }
    layout_.missing.emplace_back("threads: no thread_node found");
}

void Inference::find_frame() {
    const auto flags = flags_in_frame(layout_.task.sp.offset);
    if (!flags) return;
    auto& frame = layout_.frame;
    if (*flags != 0) frame.flags = {0, 8};
    auto at = *flags;
    for (auto* field : {&frame.r15, &frame.r14, &frame.r13, &frame.r12, &frame.bx, &frame.bp}) {
        *field = {at, 8};
        at += 8;
    }
    frame.ret_addr = {at, 8};
}

StructLayout Inference::run() {
    layout_.source = "init_task and its neighbours";
    struct Step {
        const char* name;
        Field* field;
        std::uint32_t size;
        std::function<std::optional<std::uint32_t>()> find;
    };
    auto& t = layout_.task;
    const Step steps[] = {
        {"comm", &t.comm, 16, [&] { return find_comm(); }},
        {"tasks", &t.tasks, 16, [&] { return find_tasks(); }},
        {"pid", &t.pid, 4, [&] { return find_pid(); }},
        {"stack", &t.stack, 8, [&] { return find_stack(); }},
        {"state", &t.state, 4, [&] { return find_state(); }},
        {"flags", &t.flags, 4, [&] { return find_flags(); }},
        {"mm", &t.mm, 8, [&] { return find_mm(); }},
        {"exit_state", &t.exit_state, 4, [&] { return find_exit_state(); }},
        {"thread.sp", &t.sp, 8, [&] { return find_sp(); }},
    };
    // Each builds on the ones before.
    for (const auto& step : steps) {
        const auto offset = step.find();
        if (!offset) {
            layout_.missing.push_back(std::string{"task_struct."} + step.name + " was not found");
            return layout_;
        }
        *step.field = {*offset, step.size};
    }
    t.tgid = {t.pid.offset + 4, 4};
    if (const auto pgd = find_pgd()) layout_.mm.pgd = {*pgd, 8};
    find_threads();
    find_frame();
    // The first members of struct pcpu_hot, as long as there was one (6.2 to 6.14).
    layout_.pcpu_hot.current_task = {0, 8};
    layout_.pcpu_hot.cpu_number = {12, 4};
    layout_.finish();
    return layout_;
}

}  // namespace

StructLayout layout_from_invariants(KernelImage& image, std::uint64_t init_task) {
    return Inference{image, init_task}.run();
}

std::uint64_t find_init_task(KernelImage& image, const StructLayout& layout) {
    constexpr std::size_t chunk = std::size_t{1} << 20;
    constexpr std::string_view name = "swapper";
    std::vector<std::byte> bytes(chunk + 64);
    for (auto at = raw(image.start); at < raw(image.end); at += chunk) {
        const auto got = image.space->read_some(VirtualAddress{at}, bytes).value_or(0);
        const auto text = as_text(std::span{bytes}.first(got));
        for (auto offset = text.find(name); offset != text.npos; offset = text.find(name, offset + 1)) {
            const auto task = at + offset - layout.task.comm.offset;
            const auto pid =
                image.space->read_value<std::uint32_t>(VirtualAddress{task + layout.task.pid.offset});
            const auto stack =
                image.space->read_value<std::uint64_t>(VirtualAddress{task + layout.task.stack.offset});
            if (task % 64 == 0 && pid == 0U && stack && (*stack & kernel_half) != 0 && *stack % 4096 == 0) {
                return task;
            }
        }
    }
    return 0;
}

}  // namespace exo::os
