#include <array>

#include "os-awareness/dwarf/data_units.h"

namespace exo::os::dwarf {
namespace {

constexpr auto known_rows = std::to_array<KnownGlobal>({
    {"init_task", BtfKind::structure, "task_struct", Wrap::none, "init/init_task.c"},
    {"init_mm", BtfKind::structure, "mm_struct", Wrap::none, "mm/init-mm.c"},
    {"init_cred", BtfKind::structure, "cred", Wrap::none, "kernel/cred.c"},
    {"init_nsproxy", BtfKind::structure, "nsproxy", Wrap::none, "kernel/nsproxy.c"},
    {"init_pid_ns", BtfKind::structure, "pid_namespace", Wrap::none, "kernel/pid.c"},
    {"init_uts_ns", BtfKind::structure, "uts_namespace", Wrap::none, "init/version.c"},
    {"init_user_ns", BtfKind::structure, "user_namespace", Wrap::none, "kernel/user.c"},
    {"init_ipc_ns", BtfKind::structure, "ipc_namespace", Wrap::none, "ipc/msgutil.c"},
    {"init_net", BtfKind::structure, "net", Wrap::none, "net/core/net_namespace.c"},
    {"init_css_set", BtfKind::structure, "css_set", Wrap::none, "kernel/cgroup/cgroup.c"},
    {"cgrp_dfl_root", BtfKind::structure, "cgroup_root", Wrap::none, "kernel/cgroup/cgroup.c"},
    {"root_task_group", BtfKind::structure, "task_group", Wrap::none, "kernel/sched/core.c"},
    {"rcu_state", BtfKind::structure, "rcu_state", Wrap::none, "kernel/rcu/tree.c"},
    {"modules", BtfKind::structure, "list_head", Wrap::none, "kernel/module/main.c"},
    {"super_blocks", BtfKind::structure, "list_head", Wrap::none, "fs/super.c"},
    {"slab_caches", BtfKind::structure, "list_head", Wrap::none, "mm/slab_common.c"},
    {"net_namespace_list", BtfKind::structure, "list_head", Wrap::none, "net/core/net_namespace.c"},
    {"boot_cpu_data", BtfKind::structure, "cpuinfo_x86", Wrap::none, "arch/x86/kernel/setup.c"},
    {"prb", BtfKind::structure, "printk_ringbuffer", Wrap::pointer, "kernel/printk/printk.c"},
    {"softirq_vec", BtfKind::structure, "softirq_action", Wrap::array, "kernel/softirq.c"},
    {"idt_table", BtfKind::typedef_, "gate_desc", Wrap::array, "arch/x86/kernel/idt.c"},
    {"init_top_pgt", BtfKind::typedef_, "pgd_t", Wrap::array, "arch/x86/include/asm/pgtable_64.h"},
    {"sys_call_table", BtfKind::typedef_, "sys_call_ptr_t", Wrap::const_array, "arch/x86/entry/syscall_64.c"},
    {"linux_banner", BtfKind::integer, "char", Wrap::const_array, "init/version.c"},
    {"saved_command_line", BtfKind::integer, "char", Wrap::pointer, "init/main.c"},
    {"system_state", BtfKind::enum32, "system_states", Wrap::none, "init/main.c"},
    // One address: arch/x86/kernel/vmlinux.lds.S makes the first a name of the second.
    {"jiffies", BtfKind::integer, "long unsigned int", Wrap::none, "include/linux/jiffies.h"},
    {"jiffies_64", BtfKind::typedef_, "u64", Wrap::none, "kernel/time/timer.c"},
    {"__per_cpu_offset", BtfKind::integer, "long unsigned int", Wrap::array,
     "arch/x86/kernel/setup_percpu.c"},
    {"page_offset_base", BtfKind::integer, "long unsigned int", Wrap::none, "arch/x86/kernel/head64.c"},
    {"vmalloc_base", BtfKind::integer, "long unsigned int", Wrap::none, "arch/x86/kernel/head64.c"},
    {"vmemmap_base", BtfKind::integer, "long unsigned int", Wrap::none, "arch/x86/kernel/head64.c"},
    {"phys_base", BtfKind::integer, "long unsigned int", Wrap::none, "arch/x86/include/asm/page_64.h"},
    {"tainted_mask", BtfKind::integer, "long unsigned int", Wrap::none, "kernel/panic.c"},
    {"max_pfn", BtfKind::integer, "long unsigned int", Wrap::none, "mm/memblock.c"},
    {"total_forks", BtfKind::integer, "long unsigned int", Wrap::none, "kernel/fork.c"},
    {"nr_threads", BtfKind::integer, "int", Wrap::none, "kernel/fork.c"},
    {"panic_on_oops", BtfKind::integer, "int", Wrap::none, "kernel/panic.c"},
    {"nr_cpu_ids", BtfKind::integer, "unsigned int", Wrap::none, "kernel/smp.c"},
    // Per-CPU, for kernels whose BTF has no variables.
    {"runqueues", BtfKind::structure, "rq", Wrap::none, "kernel/sched/core.c"},
    {"current_task", BtfKind::structure, "task_struct", Wrap::pointer, "arch/x86/kernel/cpu/common.c"},
    {"cpu_number", BtfKind::integer, "int", Wrap::none, "arch/x86/kernel/setup_percpu.c"},
    {"cpu_info", BtfKind::structure, "cpuinfo_x86", Wrap::none, "arch/x86/kernel/smpboot.c"},
    {"tasklet_vec", BtfKind::structure, "tasklet_head", Wrap::none, "kernel/softirq.c"},
    {"kstat", BtfKind::structure, "kernel_stat", Wrap::none, "kernel/sched/core.c"},
});

}  // namespace

std::span<const KnownGlobal> known_globals() { return known_rows; }

}  // namespace exo::os::dwarf
