#include "tests/support/task_builder.h"

#include <algorithm>
#include <cstddef>
#include <string>

namespace exo::test {
namespace {

constexpr std::uint64_t node_mark = 2;  // low bits of an XArray entry that is a node
constexpr std::uint32_t pf_kthread = 0x00200000;

std::uint64_t at(std::uint64_t base, std::size_t offset) { return base + offset; }

}  // namespace

TaskBuilder::TaskBuilder(GuestBuilder& guest, std::uint32_t cpus, bool btf) : guest_(&guest) {
    schedule_ = raw(guest.in_image(0x100, 64, "__sched_text_start", 'T'));
    guest.symbol(schedule_, 'T', "__schedule");
    sleeper_ = raw(guest.in_image(0x100, 64, "__sched_text_end", 'T'));
    guest.symbol(sleeper_, 't', "sleeper");
    guest.put(VirtualAddress{in_sleeper() - 5}, std::uint8_t{0xe8});  // call
    make_cpus(cpus);
    pid_namespace_ = raw(guest.in_image(sizeof(FakePidNamespace), 8, "init_pid_ns"));
    const auto root = raw(guest.in_heap(sizeof(FakeNode)));
    edit<FakeNode>(root, [](FakeNode& n) { n.shift = 6; });
    edit<FakePidNamespace>(pid_namespace_, [&](FakePidNamespace& n) { n.xa_head = root | node_mark; });
    if (btf) write_btf();
}

void TaskBuilder::make_cpus(std::uint32_t cpus) {
    guest_->symbol(current_task, 'A', "current_task");
    guest_->symbol(cpu_number, 'A', "cpu_number");
    guest_->symbol(runqueues, 'A', "runqueues");
    guest_->symbol(gdt_page, 'A', "gdt_page");
    offsets_ = raw(guest_->in_image(8 * std::uint64_t{cpus}, 64, "__per_cpu_offset"));
    guest_->put(guest_->in_image(4, 4, "nr_cpu_ids"), cpus);
    for (std::uint32_t i = 0; i < cpus; ++i) {
        areas_.push_back(raw(guest_->in_heap(area_bytes, 4096)));
        guest_->put(VirtualAddress{offsets_ + 8 * std::uint64_t{i}}, areas_.back());
        const auto name = "swapper/" + std::to_string(i);
        const auto task = new_task({.comm = name, .state = 0, .user = false, .cpu = i});
        idle_.push_back(task);
        if (i == 0) guest_->symbol(task, 'D', "init_task");
        edit<FakeTask>(task, [&](FakeTask& t) {
            t.tasks = {at(task, offsetof(FakeTask, tasks)), at(task, offsetof(FakeTask, tasks))};
        });
        edit<FakeRq>(areas_.back() + runqueues, [&](FakeRq& rq) { rq = {0, task, task, i, 0}; });
        guest_->put(VirtualAddress{areas_.back() + cpu_number}, i);
        run(i, task);
    }
}

std::uint64_t TaskBuilder::new_task(const TaskOptions& options) {
    const auto address =
        idle_.empty() ? raw(guest_->in_image(sizeof(FakeTask), 64)) : raw(guest_->in_heap(sizeof(FakeTask)));
    const auto signal = raw(guest_->in_heap(sizeof(FakeSignal)));
    const auto stack = raw(guest_->in_heap(stack_bytes, stack_bytes));
    FakeTask task{};
    task.cpu = options.cpu;
    task.usage = 1;
    task.flags = options.user ? 0 : pf_kthread;
    task.exit_signal = 17;  // SIGCHLD
    task.state = options.state;
    task.exit_state = options.exit_state;
    task.stack = stack;
    task.pid = task.tgid = options.tid;
    task.signal = signal;
    task.group_leader = address;
    std::ranges::copy(options.comm.substr(0, 15), task.comm);
    if (options.user) {
        task.mm = task.active_mm = raw(guest_->in_heap(sizeof(FakeMm)));
        const auto root = raw(guest_->new_process());
        // Where the direct map has it, found from a heap address.
        const auto heap = guest_->in_heap(8);
        const auto direct = raw(heap) - raw(guest_->physical_of(heap));
        edit<FakeMm>(task.mm, [&](FakeMm& mm) { mm.pgd = direct + root; });
    }
    guest_->put(VirtualAddress{stack}, std::uint64_t{0x57ac6e9d});  // STACK_END_MAGIC
    // A saved frame, and above it the caller of the scheduler.
    task.thread.sp = stack + stack_bytes - 0x400;
    task.thread.fsbase = 0x7f0000000000 + options.tid;
    task.thread.gsbase = 0x100000 + options.tid;
    const FakeFrame frame{0xf15, 0xe14, 0xd13, 0xc12, 0xb0b, task.thread.sp + 0x100, in_schedule()};
    guest_->put(VirtualAddress{task.thread.sp}, frame);
    guest_->put(VirtualAddress{task.thread.sp + sizeof frame}, in_schedule() + 8);
    guest_->put(VirtualAddress{task.thread.sp + sizeof frame + 16}, sleeper_ + 0x80);  // no call before it
    guest_->put(VirtualAddress{task.thread.sp + sizeof frame + 24}, in_sleeper());
    const auto head = at(signal, offsetof(FakeSignal, thread_head));
    const auto node = at(address, offsetof(FakeTask, thread_node));
    task.thread_node = {head, head};
    edit<FakeSignal>(signal, [&](FakeSignal& s) { s.thread_head = {node, node}; });
    guest_->put(VirtualAddress{address}, task);
    return address;
}

void TaskBuilder::append(std::uint64_t head, std::uint64_t node) {
    const auto last = get<ListLinks>(head).prev;
    guest_->put(VirtualAddress{node}, ListLinks{head, last});
    edit<ListLinks>(last, [&](ListLinks& l) { l.next = node; });
    edit<ListLinks>(head, [&](ListLinks& l) { l.prev = node; });
}

std::uint64_t TaskBuilder::add_process(const TaskOptions& options) {
    const auto task = new_task(options);
    append(at(init_task(), offsetof(FakeTask, tasks)), at(task, offsetof(FakeTask, tasks)));
    add_to_pid_table(options.tid, task);
    return task;
}

std::uint64_t TaskBuilder::add_thread(std::uint64_t leader, const TaskOptions& options) {
    const auto task = new_task(options);
    const auto first = get<FakeTask>(leader);
    edit<FakeTask>(task, [&](FakeTask& t) {
        t.tgid = first.tgid;
        t.signal = first.signal;
        t.mm = t.active_mm = first.mm;
        t.group_leader = leader;
    });
    append(at(first.signal, offsetof(FakeSignal, thread_head)), at(task, offsetof(FakeTask, thread_node)));
    add_to_pid_table(options.tid, task);
    return task;
}

void TaskBuilder::unlink(std::uint64_t task) {
    const auto links = get<FakeTask>(task).tasks;
    edit<ListLinks>(links.prev, [&](ListLinks& l) { l.next = links.next; });
    edit<ListLinks>(links.next, [&](ListLinks& l) { l.prev = links.prev; });
}

void TaskBuilder::add_to_pid_table(std::uint32_t tid, std::uint64_t task) {
    const auto pid = raw(guest_->in_heap(sizeof(FakePid)));
    const auto node = at(task, offsetof(FakeTask, pid_links));
    edit<FakePid>(pid, [&](FakePid& p) { p.tasks[0] = node; });
    const auto root = get<FakePidNamespace>(pid_namespace_).xa_head & ~std::uint64_t{3};
    auto leaf = get<FakeNode>(root).slots[tid / 64] & ~std::uint64_t{3};
    if (leaf == 0) {
        leaf = raw(guest_->in_heap(sizeof(FakeNode)));
        edit<FakeNode>(root, [&](FakeNode& n) { n.slots[tid / 64] = leaf | node_mark; });
    }
    edit<FakeNode>(leaf, [&](FakeNode& n) { n.slots[tid % 64] = pid; });
}

std::uint64_t TaskBuilder::pid_struct(std::uint32_t tid) const {
    const auto root = get<FakePidNamespace>(pid_namespace_).xa_head & ~std::uint64_t{3};
    const auto leaf = get<FakeNode>(root).slots[tid / 64] & ~std::uint64_t{3};
    return leaf == 0 ? 0 : get<FakeNode>(leaf).slots[tid % 64];
}

void TaskBuilder::run(std::uint32_t cpu, std::uint64_t task) {
    guest_->put(VirtualAddress{area(cpu) + current_task}, task);
    edit<FakeRq>(area(cpu) + runqueues, [&](FakeRq& rq) { rq.curr = task; });
    edit<FakeTask>(task, [&](FakeTask& t) {
        t.cpu = cpu;
        t.on_cpu = 1;
        t.state = 0;
    });
}

RegisterSet TaskBuilder::vcpu(std::uint32_t cpu, std::uint64_t task) const {
    auto registers = guest_->vcpu(guest_->kernel_root());
    registers.set(x86::gs_base, area(cpu));
    registers.set(x86::k_gs_base, 0);
    registers.set(x86::gdt_base, area(cpu) + gdt_page);
    registers.set(x86::rsp, get<FakeTask>(task).stack + stack_bytes - 0x200);
    return registers;
}

RegisterSet TaskBuilder::vcpu_in_user(std::uint32_t cpu, PhysicalAddress cr3, std::uint64_t user_gs) const {
    auto registers = guest_->vcpu(cr3, true);
    registers.set(x86::gs_base, user_gs);
    registers.set(x86::k_gs_base, area(cpu));
    registers.set(x86::gdt_base, area(cpu) + gdt_page);
    registers.set(x86::rsp, 0x7ffc12345678);
    return registers;
}

#define OFFSET(type, member) static_cast<std::uint32_t>(offsetof(type, member))

void TaskBuilder::write_btf() {
    BtfWriter w;
    const auto u8 = w.integer("unsigned char", 1);
    const auto u32 = w.integer("unsigned int", 4);
    const auto u64 = w.integer("unsigned long", 8);
    const auto comm = w.array(w.integer("char", 1, true), 16);
    const auto list = w.structure("list_head", 16, {{"next", u64, 0}, {"prev", u64, 8}});
    const auto thread = w.structure("thread_struct", sizeof(FakeThread),
                                    {{"sp", u64, OFFSET(FakeThread, sp)},
                                     {"fsbase", u64, OFFSET(FakeThread, fsbase)},
                                     {"gsbase", u64, OFFSET(FakeThread, gsbase)}});
    const auto info = w.structure("thread_info", 8, {{"cpu", u32, 0}});
    w.structure("task_struct", sizeof(FakeTask),
                {{"thread_info", info, 0},
                 {"flags", u32, OFFSET(FakeTask, flags)},
                 {"__state", u32, OFFSET(FakeTask, state)},
                 {"exit_state", u32, OFFSET(FakeTask, exit_state)},
                 {"stack", u64, OFFSET(FakeTask, stack)},
                 {"tasks", list, OFFSET(FakeTask, tasks)},
                 {"pid", u32, OFFSET(FakeTask, pid)},
                 {"tgid", u32, OFFSET(FakeTask, tgid)},
                 {"mm", u64, OFFSET(FakeTask, mm)},
                 {"signal", u64, OFFSET(FakeTask, signal)},
                 {"group_leader", u64, OFFSET(FakeTask, group_leader)},
                 {"thread_node", list, OFFSET(FakeTask, thread_node)},
                 {"pid_links", w.array(list, 4), OFFSET(FakeTask, pid_links)},
                 {"comm", comm, OFFSET(FakeTask, comm)},
                 {"on_cpu", u32, OFFSET(FakeTask, on_cpu)},
                 {"thread", thread, OFFSET(FakeTask, thread)}});
    w.structure("signal_struct", sizeof(FakeSignal),
                {{"thread_head", list, OFFSET(FakeSignal, thread_head)}});
    w.structure("mm_struct", sizeof(FakeMm), {{"pgd", u64, OFFSET(FakeMm, pgd)}});
    w.structure("rq", sizeof(FakeRq),
                {{"curr", u64, OFFSET(FakeRq, curr)},
                 {"idle", u64, OFFSET(FakeRq, idle)},
                 {"cpu", u32, OFFSET(FakeRq, cpu)}});
    w.structure("inactive_task_frame", sizeof(FakeFrame),
                {{"r15", u64, OFFSET(FakeFrame, r15)},
                 {"r14", u64, OFFSET(FakeFrame, r14)},
                 {"r13", u64, OFFSET(FakeFrame, r13)},
                 {"r12", u64, OFFSET(FakeFrame, r12)},
                 {"bx", u64, OFFSET(FakeFrame, bx)},
                 {"bp", u64, OFFSET(FakeFrame, bp)},
                 {"ret_addr", u64, OFFSET(FakeFrame, ret_addr)}});
    const auto xarray = w.structure("xarray", 8, {{"xa_head", u64, 0}});
    const auto idr = w.structure("idr", 16, {{"idr_rt", xarray, 0}, {"idr_base", u32, 8}});
    w.structure("pid_namespace", sizeof(FakePidNamespace), {{"idr", idr, OFFSET(FakePidNamespace, xa_head)}});
    w.structure(
        "xa_node", sizeof(FakeNode),
        {{"shift", u8, OFFSET(FakeNode, shift)}, {"slots", w.array(u64, 64), OFFSET(FakeNode, slots)}});
    w.structure("pid", sizeof(FakePid), {{"tasks", w.array(u64, 4), OFFSET(FakePid, tasks)}});

    const auto blob = w.blob();
    const auto begin = guest_->in_image(blob.size(), 8, "__start_BTF", 'R');
    std::ranges::copy(blob, guest_->bytes(begin, blob.size()).begin());
    guest_->symbol(raw(begin) + blob.size(), 'R', "__stop_BTF");
}

#undef OFFSET

}  // namespace exo::test
