#include "os-awareness/linux/struct_layout.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace exo::os {
namespace {

enum class Need : std::uint8_t { required, optional };

struct FieldRow {
    Field& (*field)(StructLayout&);
    Need need;
    const char* type;
    std::array<const char*, 3> paths;  // newest first
};

// NOLINTNEXTLINE(bugprone-macro-parentheses): a member's name cannot stand in parentheses
#define FIELD(member) [](StructLayout& l) -> Field& { return l.member; }

// clang-format off
const FieldRow field_rows[] = {
    // 2f064a59a11f (5.14) made it an unsigned int and renamed it; RHEL took that back to 4.18.
    {FIELD(task.state), Need::required, "task_struct", {"__state", "state"}},
    {FIELD(task.exit_state), Need::required, "task_struct", {"exit_state"}},
    {FIELD(task.flags), Need::required, "task_struct", {"flags"}},
    {FIELD(task.stack), Need::required, "task_struct", {"stack"}},
    // bcf9033e5449 (5.16) moved it into thread_info. RHEL 9's 5.14 has both, one of them dead: which one
    // lives is seen in the idle tasks, see PerCpu. Neither exists without SMP.
    {FIELD(task.cpu), Need::optional, "task_struct", {"cpu", "thread_info.cpu"}},
    {FIELD(task.cpu_alternative), Need::optional, "task_struct", {"thread_info.cpu"}},
    {FIELD(task.on_cpu), Need::optional, "task_struct", {"on_cpu"}},
    {FIELD(task.tasks), Need::required, "task_struct", {"tasks"}},
    // 0c740d0afc3b (3.14); thread_group, the older ring, went in 8e1f385104ac (6.7).
    {FIELD(task.thread_node), Need::required, "task_struct", {"thread_node"}},
    // 2c4704756cab (4.19): before, an array of struct pid_link whose first member is the node.
    {FIELD(task.pid_links), Need::optional, "task_struct", {"pid_links", "pids"}},
    {FIELD(task.pid), Need::required, "task_struct", {"pid"}},
    {FIELD(task.tgid), Need::required, "task_struct", {"tgid"}},
    {FIELD(task.comm), Need::required, "task_struct", {"comm"}},
    {FIELD(task.mm), Need::required, "task_struct", {"mm"}},
    {FIELD(task.signal), Need::required, "task_struct", {"signal"}},
    {FIELD(task.group_leader), Need::optional, "task_struct", {"group_leader"}},
    {FIELD(task.sp), Need::required, "task_struct", {"thread.sp"}},
    // 296f781a4b7c (4.7) renamed fs and gs.
    {FIELD(task.fsbase), Need::optional, "task_struct", {"thread.fsbase", "thread.fs"}},
    {FIELD(task.gsbase), Need::optional, "task_struct", {"thread.gsbase", "thread.gs"}},

    {FIELD(signal.thread_head), Need::required, "signal_struct", {"thread_head"}},
    {FIELD(mm.pgd), Need::optional, "mm_struct", {"pgd"}},
    {FIELD(rq.curr), Need::required, "rq", {"curr"}},
    {FIELD(rq.idle), Need::required, "rq", {"idle"}},
    {FIELD(rq.cpu), Need::optional, "rq", {"cpu"}},

    // 0100301bfdf5 (4.9). `flags` was there from 6690e86be83a (5.2) until 64604d54d311 (5.8), and in stables.
    {FIELD(frame.flags), Need::optional, "inactive_task_frame", {"flags"}},
    {FIELD(frame.r15), Need::optional, "inactive_task_frame", {"r15"}},
    {FIELD(frame.r14), Need::optional, "inactive_task_frame", {"r14"}},
    {FIELD(frame.r13), Need::optional, "inactive_task_frame", {"r13"}},
    {FIELD(frame.r12), Need::optional, "inactive_task_frame", {"r12"}},
    {FIELD(frame.bx), Need::optional, "inactive_task_frame", {"bx"}},
    {FIELD(frame.bp), Need::optional, "inactive_task_frame", {"bp"}},
    {FIELD(frame.ret_addr), Need::optional, "inactive_task_frame", {"ret_addr"}},

    // e57ef2ed97c1 (6.2) gathered them in one struct, which 6.15 took apart again.
    {FIELD(pcpu_hot.current_task), Need::optional, "pcpu_hot", {"current_task"}},
    {FIELD(pcpu_hot.cpu_number), Need::optional, "pcpu_hot", {"cpu_number"}},
    {FIELD(pcpu_hot.top_of_stack), Need::optional, "pcpu_hot", {"top_of_stack"}},

    // 95846ecf9dac (4.15) put pids into an IDR; its tree's root was called rnode until f8d5d0cc145c (4.20).
    {FIELD(pid_table.root), Need::optional, "pid_namespace", {"idr.idr_rt.xa_head", "idr.idr_rt.rnode"}},
    {FIELD(pid_table.idr_base), Need::optional, "pid_namespace", {"idr.idr_base"}},
    {FIELD(pid_table.pid_tasks), Need::optional, "pid", {"tasks"}},
};
// clang-format on

#undef FIELD

Field find(const Btf& btf, const char* type, std::string_view path) {
    return field_in(btf, type, path).value_or(Field{});
}

void find_tree_nodes(const Btf& btf, StructLayout& layout) {
    auto& table = layout.pid_table;
    // 4.20: struct xa_node, entries marked 2; before, radix_tree_node and 1.
    const char* node = btf.find_composite("xa_node") ? "xa_node" : "radix_tree_node";
    table.internal_mark = btf.field("pid_namespace", "idr.idr_rt.xa_head") ? 2 : 1;
    table.node_shift = find(btf, node, "shift");
    table.node_slots = find(btf, node, "slots");
}

}  // namespace

std::optional<Field> field_in(const Btf& btf, const char* type, std::string_view path) {
    const auto found = btf.field(type, path);
    // A kernel structure is at most some 100 KB (with its arrays); offsets beyond are lies.
    if (!found || found->bits != 0 || found->offset() > (1U << 20) || found->size > (1U << 20))
        return std::nullopt;
    return Field{static_cast<std::uint32_t>(found->offset()), static_cast<std::uint32_t>(found->size)};
}

void StructLayout::finish() {
    const auto end = [](const Field& f) { return f.offset + f.size; };
    const auto& t = task;
    task.read_size = 0;
    for (const auto* f : {&t.state, &t.exit_state, &t.flags, &t.stack, &t.cpu, &t.cpu_alternative, &t.on_cpu,
                          &t.tasks, &t.thread_node, &t.pid_links, &t.pid, &t.tgid, &t.comm, &t.mm, &t.signal,
                          &t.group_leader, &t.sp, &t.fsbase, &t.gsbase}) {
        if (f->present()) task.read_size = std::max(task.read_size, end(*f));
    }
    frame.size = frame.ret_addr ? end(frame.ret_addr) : 0;
}

StructLayout layout_from_btf(const Btf& btf) {
    StructLayout layout;
    layout.source = "BTF";
    for (const auto& row : field_rows) {
        auto& field = row.field(layout);
        for (const auto* path : row.paths) {
            if (path == nullptr || field) break;
            field = find(btf, row.type, path);
        }
        if (!field && row.need == Need::required) {
            layout.missing.push_back("no " + std::string{row.type} + "." + row.paths[0] + " in BTF");
        }
    }
    find_tree_nodes(btf, layout);
    layout.finish();
    return layout;
}

}  // namespace exo::os
