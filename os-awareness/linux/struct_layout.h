// Where the fields of kernel structures are that the task walk needs.
//
// Kernel versions are never tested for: each field lists the places where it has been, newest first, and the
// first that the kernel's own types have is taken.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/memory.h"
#include "os-awareness/linux/btf.h"

namespace exo::os {

struct Field {
    std::uint32_t offset = 0;
    std::uint32_t size = 0;  // bytes; 0: this kernel has no such field

    [[nodiscard]] bool present() const { return size != 0; }
    explicit operator bool() const { return present(); }

    // An integer or pointer of up to 8 bytes out of a structure that was read as a whole; nothing where the
    // field is absent or past the end of `bytes`.
    [[nodiscard]] std::optional<std::uint64_t> in(ConstBytes bytes) const {
        if (size == 0 || size > sizeof(std::uint64_t)) return std::nullopt;
        if (offset > bytes.size() || bytes.size() - offset < size) return std::nullopt;
        std::uint64_t value = 0;
        std::memcpy(&value, bytes.data() + offset, size);
        return value;
    }
};

struct StructLayout {
    struct {
        Field state, exit_state, flags, stack, cpu, cpu_alternative, on_cpu;
        Field tasks, thread_node, pid_links;  // list nodes
        Field pid, tgid, comm, mm, signal, group_leader;
        Field sp, fsbase, gsbase;     // of task_struct.thread
        std::uint32_t read_size = 0;  // from the start of a task_struct to the end of its last field above
    } task;
    struct {
        Field thread_head;
    } signal;
    struct {
        Field pgd;
    } mm;
    struct {
        Field curr, idle, cpu;
    } rq;
    // struct inactive_task_frame: what switching away pushes (arch/x86/include/asm/switch_to.h).
    struct {
        Field flags, r15, r14, r13, r12, bx, bp, ret_addr;
        std::uint32_t size = 0;
    } frame;
    struct {
        Field current_task, cpu_number, top_of_stack;
    } pcpu_hot;
    // The pid table of the initial pid namespace.
    struct {
        Field root;      // of the tree in struct pid_namespace
        Field idr_base;  // id of index 0
        Field node_shift, node_slots;
        Field pid_tasks;                  // of struct pid: list heads by type; PIDTYPE_PID is the first
        std::uint64_t internal_mark = 0;  // low bits of an entry that is a node
    } pid_table;

    std::vector<std::string> missing;  // of what is needed, one line each
    std::string source;                // "BTF", "init_task and its neighbours"

    // Enough to list tasks.
    [[nodiscard]] bool usable() const { return missing.empty(); }
    // Computes what follows from the fields: read_size and frame.size.
    void finish();
};

StructLayout layout_from_btf(const Btf& btf);

// Where a member is by these types: "thread.fpu" of "task_struct". Nothing where there is none, or one of
// bits, or one that no kernel structure has room for.
std::optional<Field> field_in(const Btf& btf, const char* type, std::string_view path);

}  // namespace exo::os
