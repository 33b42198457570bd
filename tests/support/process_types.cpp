#include "tests/support/process_types.h"

#include <cstdint>
#include <map>
#include <string_view>

#include "tests/support/btf_writer.h"

namespace exo::test {
namespace {

// Lays members out one after the other; sizes by type.
class TypeWriter {
public:
    struct Named {
        std::string_view name;
        os::BtfId type;
    };

    os::BtfId number(std::string_view name, std::uint32_t size) {
        return keep(writer_.integer(name, size), size);
    }
    os::BtfId array(os::BtfId of, std::uint32_t count) {
        return keep(writer_.array(of, count), count * sizes_.at(of));
    }
    os::BtfId structure(std::string_view name, const std::vector<Named>& members) {
        std::vector<BtfWriter::Member> laid_out;
        std::uint32_t size = 0;
        for (const auto& member : members) {
            const auto bytes = sizes_.at(member.type);
            size = (size + 7) & ~7U;
            laid_out.push_back({member.name, member.type, size});
            size += bytes;
        }
        size = (size + 7) & ~7U;
        return keep(writer_.structure(name, size, laid_out), size);
    }
    BtfWriter& writer() { return writer_; }

private:
    os::BtfId keep(os::BtfId id, std::uint32_t size) {
        sizes_[id] = size;
        return id;
    }

    BtfWriter writer_;
    std::map<os::BtfId, std::uint32_t> sizes_;
};

}  // namespace

std::vector<std::byte> process_types() {
    TypeWriter w;
    const auto c = w.number("char", 1), u16 = w.number("short", 2), u32 = w.number("int", 4),
               u64 = w.number("long", 8);
    const auto path = w.structure("path", {{"mnt", u64}, {"dentry", u64}});
    const auto counter = w.structure("atomic", {{"counter", u64}});
    const auto id = w.structure("kuid", {{"val", u32}});
    const auto signals = w.structure("sigpending", {{"list", u64}, {"signal", u64}});
    const auto node = w.structure("node", {{"next", u64}, {"pprev", u64}});
    const auto name = w.structure("qstr", {{"len", u32}, {"name", u64}});
    const auto tree = w.structure("maple_tree", {{"ma_flags", u32}, {"ma_root", u64}});
    const auto xarray = w.structure("xarray", {{"xa_flags", u32}, {"xa_head", u64}});
    const auto context = w.structure("mm_context", {{"vdso", u64}, {"vdso_image", u64}, {"flags", u64}});
    w.structure("vdso_image", {{"data", u64}, {"size", u64}});

    w.structure("task_struct", {{"pad", w.array(u64, 9)},
                                {"flags", u32},
                                {"mm", u64},
                                {"pid", u32},
                                {"tgid", u32},
                                {"real_parent", u64},
                                {"parent", u64},
                                {"ptrace", u32},
                                {"real_cred", u64},
                                {"fs", u64},
                                {"files", u64},
                                {"signal", u64},
                                {"blocked", u64},
                                {"pending", signals},
                                {"comm", w.array(c, 16)}});
    w.structure("signal_struct",
                {{"nr_threads", u32}, {"shared_pending", signals}, {"pids", w.array(u64, 4)}, {"tty", u64}});
    w.structure("pid", {{"count", u32}, {"numbers", w.array(node, 0)}, {"pad", w.array(u64, 4)}});
    w.writer().enum32("pid_type", false, {{"PIDTYPE_PID", 0}, {"PIDTYPE_PGID", 2}, {"PIDTYPE_SID", 3}});
    w.structure("cred", {{"usage", u64},
                         {"uid", id},
                         {"euid", id},
                         {"suid", id},
                         {"fsuid", id},
                         {"gid", id},
                         {"egid", id},
                         {"sgid", id},
                         {"fsgid", id},
                         {"cap_inheritable", u64},
                         {"cap_permitted", u64},
                         {"cap_effective", u64},
                         {"cap_bset", u64},
                         {"cap_ambient", u64}});
    w.structure("mm_struct", {{"pad", u64},
                              {"mm_mt", tree},
                              {"pgd", u64},
                              {"pgtables_bytes", counter},
                              {"hiwater_vm", u64},
                              {"total_vm", u64},
                              {"locked_vm", u64},
                              {"pinned_vm", u64},
                              {"data_vm", u64},
                              {"exec_vm", u64},
                              {"stack_vm", u64},
                              {"start_code", u64},
                              {"end_code", u64},
                              {"start_brk", u64},
                              {"brk", u64},
                              {"start_stack", u64},
                              {"arg_start", u64},
                              {"arg_end", u64},
                              {"env_start", u64},
                              {"env_end", u64},
                              {"saved_auxv", w.array(u64, 12)},
                              {"context", context},
                              {"flags", u64},
                              {"exe_file", u64}});
    w.structure("vm_area_struct", {{"vm_start", u64},
                                   {"vm_end", u64},
                                   {"vm_mm", u64},
                                   {"vm_flags", u64},
                                   {"shared", node},
                                   {"vm_ops", u64},
                                   {"vm_pgoff", u64},
                                   {"vm_file", u64},
                                   {"vm_private_data", u64},
                                   {"anon_name", u64}});
    w.structure("anon_vma_name", {{"kref", u32}, {"name", w.array(c, 0)}, {"pad", w.array(u64, 10)}});
    w.structure("vm_operations_struct", {{"open", u64}, {"name", u64}});
    w.structure("vm_special_mapping", {{"name", u64}});
    const auto file = w.structure("file", {{"f_mode", u32}, {"f_inode", u64}, {"f_path", path}});
    w.structure("backing_file", {{"file", file}, {"user_path", path}});
    w.structure("fs_struct", {{"users", u32}, {"umask", u32}, {"root", path}, {"pwd", path}});
    w.structure("dentry", {{"d_flags", u32},
                           {"d_hash", node},
                           {"d_parent", u64},
                           {"d_name", name},
                           {"d_inode", u64},
                           {"d_op", u64},
                           {"d_sb", u64},
                           {"d_sib", node},
                           {"d_children", u64}});
    w.structure("files_struct", {{"count", u32}, {"fdt", u64}});
    w.structure("fdtable", {{"max_fds", u32}, {"fd", u64}});
    w.structure("dentry_operations", {{"d_hash", u64}, {"d_dname", u64}});
    const auto vfsmount = w.structure("vfsmount", {{"mnt_root", u64}, {"mnt_sb", u64}});
    w.structure("mount", {{"mnt_hash", node},
                          {"mnt_parent", u64},
                          {"mnt_mountpoint", u64},
                          {"mnt", vfsmount},
                          {"mnt_mounts", node},
                          {"mnt_child", node}});
    w.structure("inode", {{"i_mode", u16},
                          {"i_sb", u64},
                          {"i_mapping", u64},
                          {"i_ino", u64},
                          {"i_size", u64},
                          {"i_link", u64}});
    w.structure("super_block", {{"s_dev", u32}, {"s_type", u64}});
    w.structure("file_system_type", {{"name", u64}, {"fs_flags", u32}});
    w.structure("address_space", {{"host", u64}, {"i_pages", xarray}});
    w.structure("xa_node", {{"shift", c}, {"slots", w.array(u64, 64)}});
    w.structure("page", {{"flags", u64}, {"pad", w.array(u64, 7)}});
    w.structure("folio", {{"flags", u64}, {"lru", node}, {"mapping", u64}, {"index", u64}});
    w.writer().enum32("pageflags", false, {{"PG_locked", 0}, {"PG_uptodate", 3}});
    w.writer().enum32(
        "maple_type", false,
        {{"maple_dense", 0}, {"maple_leaf_64", 1}, {"maple_range_64", 2}, {"maple_arange_64", 3}});
    w.structure("maple_range_64", {{"parent", u64}, {"pivot", w.array(u64, 15)}, {"slot", w.array(u64, 16)}});
    w.structure(
        "maple_arange_64",
        {{"parent", u64}, {"pivot", w.array(u64, 9)}, {"slot", w.array(u64, 10)}, {"gap", w.array(u64, 10)}});
    return w.writer().blob();
}

}  // namespace exo::test
