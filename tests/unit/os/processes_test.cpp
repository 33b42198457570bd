#include "os-awareness/linux/processes.h"

#include <doctest/doctest.h>

#include <cstring>

#include "tests/support/process_builder.h"

namespace {

using namespace exo;
using namespace exo::test;

bool has(const std::string& text, std::string_view part) { return text.find(part) != text.npos; }

void fill(MutableBytes page, std::string_view text) {
    std::memset(page.data(), '.', page.size());
    std::memcpy(page.data(), text.data(), text.size());
}

constexpr std::string_view all_maps =
    "00400000-00403000 r-xp 00000000 00:02 3                                  /bin/program\n"
    "00500000-00504000 r--s 00000000 08:01 12                                 /mnt/data\n"
    "00600000-00604000 rw-p 00000000 00:00 0 \n"
    "00700000-00701000 rw-p 00000000 00:00 0                                  [heap]\n"
    "7ffd00000000-7ffd00002000 rw-p 00000000 00:00 0                          [stack]\n";

}  // namespace

TEST_CASE_FIXTURE(ProcessGuest, "maps: as the kernel prints them") {
    CHECK(proc("maps") == all_maps);
    SUBCASE("a given name, of anonymous memory and of shared one") {
        const auto name = make("anon_vma_name");
        guest.put_text(VirtualAddress{field(name, "anon_vma_name", "name")}, "mine");
        set(anonymous_vma, "vm_area_struct", "anon_name", name);
        CHECK(has(proc("maps"), " [anon:mine]\n"));
        set(data_vma, "vm_area_struct", "anon_name", name);
        CHECK(has(proc("maps"), " [anon_shmem:mine]\n"));
    }
    SUBCASE("a mapping that names itself") {
        const auto operations = make("vm_operations_struct"), mapping = make("vm_special_mapping");
        set(operations, "vm_operations_struct", "name", raw(guest.text()) + 0x100);
        set(mapping, "vm_special_mapping", "name", text("[vdso]"));
        set(anonymous_vma, "vm_area_struct", "vm_ops", operations);
        set(anonymous_vma, "vm_area_struct", "vm_private_data", mapping);
        CHECK(has(proc("maps"), " [vdso]\n"));
        set(operations, "vm_operations_struct", "name", raw(guest.text()) + 0x300);
        CHECK(proc("maps") == all_maps);
    }
    SUBCASE("a file without a name any more, and one with a line feed in it") {
        const auto entry = get(bin, "dentry", "d_children") - field(0, "dentry", "d_sib");
        set(entry, "dentry", "d_hash.pprev", 0);
        CHECK(has(proc("maps"), " /bin/program (deleted)\n"));
        set(entry, "dentry", "d_name.name", text("pro\ngram"));
        set(entry, "dentry", "d_name.len", 8);
        CHECK(has(proc("maps"), " /bin/pro\\012gram (deleted)\n"));
    }
    SUBCASE("a file in no folder") {
        const auto entry = get(bin, "dentry", "d_children") - field(0, "dentry", "d_sib");
        const auto operations = make("dentry_operations");
        set(operations, "dentry_operations", "d_dname", raw(guest.text()) + 0x200);
        set(entry, "dentry", "d_op", operations);
        CHECK(has(proc("maps"), " /program (deleted)\n"));
    }
    SUBCASE("a file below another, and a mode that only looks like it") {
        const auto file = get(text_vma, "vm_area_struct", "vm_file");
        set(file, "file", "f_mode", 1U << 24U);
        CHECK(proc("maps") == all_maps);
        const auto user = field(file, "backing_file", "user_path");
        set(user, "path", "mnt", mounted.mount);
        set(user, "path", "dentry", mounted.dentry);
        CHECK(proc("maps") == all_maps);
        set(mounted.mount, "vfsmount", "mnt_sb", on_disk);
        set(mounted.dentry, "dentry", "d_sb", on_disk);
        CHECK(has(proc("maps"), "00400000-00403000 r-xp 00000000 08:01 2  "));
        CHECK(has(proc("maps"), " /mnt\n"));
    }
    SUBCASE("a process in a root of its own") {
        set(field(fs, "fs_struct", "root"), "path", "dentry", bin);
        CHECK(has(proc("maps"), " /program\n"));
        CHECK(has(proc("maps"), " /mnt/data\n"));  // not below it
        CHECK(*processes->proc_link(task, "root") == "/bin");
    }
}

TEST_CASE_FIXTURE(ProcessGuest, "maps of a guest that lies: an error, never a part") {
    const auto broken = [&](std::string_view why) {
        const auto text = proc("maps");
        CHECK_MESSAGE(text.starts_with("error: "), text);
        CHECK_MESSAGE(has(text, why), text);
    };
    const auto slot = [&](std::size_t index) {
        return VirtualAddress{field(leaf, "maple_range_64", "slot") + 8 * index};
    };
    const auto tree = [&](std::uint64_t value) { set(mm, "mm_struct", "mm_mt.ma_root", value); };
    SUBCASE("a tree that leads back to itself") {
        tree(leaf | 2U << 3U | 2);
        guest.put(slot(0), leaf | 2U << 3U | 4);
        broken("is met twice");
    }
    SUBCASE("a node of no type") {
        tree(leaf | 9U << 3U | 2);
        broken("unknown type 9");
    }
    SUBCASE("pivots that descend") {
        guest.put(VirtualAddress{field(leaf, "maple_range_64", "pivot") + 16}, std::uint64_t{0x1000});
        broken("do not ascend");
    }
    SUBCASE("a node that is nowhere") {
        tree(0x1000 | 1U << 3U | 2);
        broken("can be at 0x1000");
    }
    SUBCASE("a mapping of another process") {
        set(text_vma, "vm_area_struct", "vm_mm", mm + 8);
        broken("makes no sense");
    }
    SUBCASE("a mapping from top to bottom") {
        set(text_vma, "vm_area_struct", "vm_end", 0x3ff000);
        broken("makes no sense");
    }
    SUBCASE("a mapping elsewhere") {
        set(text_vma, "vm_area_struct", "vm_end", 0x402000);
        broken("not where their tree has it");
    }
    SUBCASE("folders in a circle") {
        set(bin, "dentry", "d_parent", get(bin, "dentry", "d_children") - field(0, "dentry", "d_sib"));
        broken("a path of more than 8192 bytes");
    }
    SUBCASE("mounts in a circle") {
        const auto inner = field(0, "mount", "mnt");
        set(root.mount - inner, "mount", "mnt_parent", mounted.mount - inner);
        set(root.mount - inner, "mount", "mnt_mountpoint", mounted.dentry);
        set(field(fs, "fs_struct", "root"), "path", "dentry", bin);
        broken("a path without end");
    }
    SUBCASE("a name without end") {
        set(bin, "dentry", "d_name.len", 0x7fffffff);
        broken("has 2147483647 bytes");
    }
    SUBCASE("another task") {
        set(raw(task.address), "task_struct", "pid", 71);
        broken("no task 70");
    }
}

TEST_CASE_FIXTURE(ProcessGuest, "status and stat: what memory tells") {
    for (const auto& [name, value] : {std::pair{"uid", 1000}, {"euid", 1001}, {"fsgid", 1002}}) {
        set(field(cred, "cred", name), "kuid", "val", static_cast<std::uint64_t>(value));
    }
    const auto status = proc("status");
    CHECK(status.starts_with(
        "Name:\tpro\\ngram\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t70\nPid:\t70\nPPid:\t1\n"
        "TracerPid:\t0\nUid:\t1000\t1001\t0\t0\nGid:\t0\t0\t0\t1002\n"
        "VmPeak:\t      56 kB\nVmSize:\t      56 kB\n"));
    CHECK(has(status, "VmExe:\t       4 kB\nVmLib:\t       8 kB\n"));
    CHECK(has(status, "Threads:\t3\n"));
    CHECK(has(status, "SigBlk:\t0000000000000010\n"));
    CHECK(proc("stat") == "70 (pro\ngram) S 1 70 70 0 -1 4194304\n");
    CHECK(proc("comm") == "pro\ngram\n");
    set(raw(task.address), "task_struct", "ptrace", 1);
    CHECK(has(proc("status"), "TracerPid:\t2\n"));
    CHECK(proc("nothing").starts_with("error: "));
}

TEST_CASE_FIXTURE(ProcessGuest, "auxv ends after the pair that ends it") {
    const VirtualAddress at{field(mm, "mm_struct", "saved_auxv")};
    const std::uint64_t words[] = {33, 0x7ffd00000000, 6, 4096, 0, 0, 7, 7};
    guest.put(at, words);
    CHECK(proc("auxv") == as_text(std::as_bytes(std::span{words}).first(48)));
}

TEST_CASE_FIXTURE(ProcessGuest, "arguments and environment, out of the process' own memory") {
    const std::string_view content{"run\0-v\0A=1\0B=2\0", 15};
    fill(present(0x7ffd'0000'1000), content);
    for (const auto& [name, value] : {std::pair{"arg_start", 0x7ffd'0000'1000},
                                      {"arg_end", 0x7ffd'0000'1007},
                                      {"env_start", 0x7ffd'0000'1007},
                                      {"env_end", 0x7ffd'0000'100f}}) {
        set(mm, "mm_struct", name, static_cast<std::uint64_t>(value));
    }
    CHECK(proc("cmdline") == content.substr(0, 7));
    CHECK(proc("environ") == content.substr(7));
    // setproctitle(3): over the end of the arguments.
    fill(guest.memory().bytes(PhysicalAddress{entry(0x7ffd'0000'1000) & 0xffff'ffff'f000}, 4096),
         std::string_view{"run: idle, title\0", 17});
    set(mm, "mm_struct", "env_end", 0x7ffd'0000'1020);
    CHECK(proc("cmdline") == std::string_view{"run: idle, title\0", 17});
    set(mm, "mm_struct", "env_end", 0x8ffd'0000'1020);
    CHECK(has(proc("environ"), "error: a text of "));
}

TEST_CASE_FIXTURE(ProcessGuest, "a kernel thread has empty files and no executable") {
    task.kernel_thread = true;
    for (const auto* name : {"maps", "smaps", "cmdline", "environ", "auxv"}) CHECK(proc(name).empty());
    CHECK_FALSE(processes->proc_link(task, "exe"));
    CHECK_FALSE(processes->executable(task));
    CHECK_FALSE(processes->readable_space(task));
}

TEST_CASE_FIXTURE(ProcessGuest, "links") {
    CHECK(*processes->proc_link(task, "exe") == "/bin/program");
    CHECK(*processes->proc_link(task, "cwd") == "/bin");
    CHECK(*processes->proc_link(task, "root") == "/");
    CHECK_FALSE(processes->proc_link(task, "fd/0"));
    CHECK(processes->executable(task)->inode == VirtualAddress{program});
}

TEST_CASE_FIXTURE(ProcessGuest, "open files") {
    const auto files = make("files_struct"), table = make("fdtable");
    const auto array = guest.in_heap(4800);
    set(raw(task.address), "task_struct", "files", files);
    set(files, "files_struct", "fdt", table);
    set(table, "fdtable", "max_fds", 600);
    set(table, "fdtable", "fd", raw(array));
    guest.put(array + 8, get(text_vma, "vm_area_struct", "vm_file"));
    guest.put(array + 4792, get(data_vma, "vm_area_struct", "vm_file"));
    const auto open = processes->open_files(task);
    REQUIRE(open);
    REQUIRE(open->size() == 2);
    CHECK((*open)[0].number == 1);
    CHECK((*open)[0].name == "/bin/program");
    CHECK((*open)[1].number == 599);
    CHECK(*processes->proc_link(task, "fd/599") == "/mnt/data");
    CHECK_FALSE(processes->proc_link(task, "fd/2"));
    guest.put(array + 16, std::uint64_t{0x1000});
    CHECK_FALSE(processes->open_files(task));  // not a part of them
    set(table, "fdtable", "max_fds", 0x7fffffff);
    CHECK(has(processes->open_files(task).error().message, "a table of 2147483647 file descriptors"));
    set(raw(task.address), "task_struct", "files", 0);
    CHECK(processes->open_files(task)->empty());
}
