#include "tests/support/process_builder.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "tests/support/process_types.h"

namespace exo::test {
namespace {

constexpr std::uint64_t leaf_mark = 1U << 3U;  // maple_leaf_64
constexpr std::uint64_t root_mark = 2;         // of the root of a maple tree, of a node of an XArray
constexpr std::uint64_t uptodate = 1U << 3U;

}  // namespace

ProcessGuest::ProcessGuest() : btf(*os::Btf::parse(process_types())) {
    image.space = std::make_unique<os::PageTables>(guest.memory(), guest.kernel_root(), guest.options().mode);
    image.mode = guest.options().mode;
    vmemmap_ = raw(guest.in_heap((guest.options().ram_bytes / page_bytes) * page_struct_bytes, page_bytes));
    const auto base = guest.in_image(8);
    guest.put(base, vmemmap_);
    image.symbols.add(base, 'D', "vmemmap_base");
    image.symbols.add(guest.in_image(page_bytes, page_bytes), 'B', "empty_zero_page");
    image.symbols.add(guest.text() + 0x100, 't', "special_mapping_name");
    image.symbols.add(guest.text() + 0x200, 'T', "simple_dname");
    image.symbols.add(guest.text() + 0x300, 't', "other");
    image.symbols.finish();
    make_task();
    make_files();
    make_mappings();
    processes = std::make_unique<os::LinuxProcesses>(guest.memory(), image, btf);
}

std::uint64_t ProcessGuest::make(std::string_view type) {
    return raw(guest.in_heap(*btf.size_of(btf.find_composite(type)->id), 256));
}

std::uint64_t ProcessGuest::field(std::uint64_t object, std::string_view type, std::string_view path) const {
    const auto found = btf.field(type, path);
    if (!found) throw std::logic_error(found.error().message);
    return object + found->offset();
}

void ProcessGuest::set(std::uint64_t object, std::string_view type, std::string_view path,
                       std::uint64_t value) {
    const auto size = std::min<std::uint64_t>(btf.field(type, path)->size, sizeof value);
    std::memcpy(guest.bytes(VirtualAddress{field(object, type, path)}, size).data(), &value, size);
}

std::uint64_t ProcessGuest::get(std::uint64_t object, std::string_view type, std::string_view path) {
    std::uint64_t value = 0;
    const auto size = std::min<std::uint64_t>(btf.field(type, path)->size, sizeof value);
    std::memcpy(&value, guest.bytes(VirtualAddress{field(object, type, path)}, size).data(), size);
    return value;
}

std::uint64_t ProcessGuest::text(std::string_view text) {
    const auto at = guest.in_heap(text.size() + 1);
    guest.put_text(at, text);
    return raw(at);
}

void ProcessGuest::make_task() {
    const auto address = make("task_struct");
    mm = make("mm_struct");
    fs = make("fs_struct");
    cred = make("cred");
    signal = make("signal_struct");
    parent = make("task_struct");
    const auto group = make("pid");
    task = {.address = VirtualAddress{address}, .tid = 70, .tgid = 70, .comm = "program", .state = 'S'};
    for (const auto& [name, value] :
         std::initializer_list<std::pair<std::string_view, std::uint64_t>>{{"mm", mm},
                                                                           {"pid", 70},
                                                                           {"tgid", 70},
                                                                           {"real_parent", parent},
                                                                           {"parent", parent},
                                                                           {"real_cred", cred},
                                                                           {"fs", fs},
                                                                           {"signal", signal},
                                                                           {"flags", 0x400000},
                                                                           {"blocked", 0x10}}) {
        set(address, "task_struct", name, value);
    }
    guest.put_text(VirtualAddress{field(address, "task_struct", "comm")}, "pro\ngram");
    set(parent, "task_struct", "tgid", 1);
    set(parent, "task_struct", "pid", 2);
    set(fs, "fs_struct", "umask", 022);
    set(signal, "signal_struct", "nr_threads", 3);
    guest.put(VirtualAddress{field(group, "pid", "numbers")}, std::uint32_t{70});
    for (std::uint64_t type : {2U, 3U}) {
        guest.put(VirtualAddress{field(signal, "signal_struct", "pids") + 8 * type}, group);
    }
    tables_ = guest.new_process();
    const auto heap = guest.in_heap(8);
    set(mm, "mm_struct", "pgd", raw(heap) - raw(guest.physical_of(heap)) + raw(tables_));
}

std::uint64_t ProcessGuest::super_block(std::string_view file_system, std::uint64_t device, bool disk) {
    const auto type = make("file_system_type"), block = make("super_block");
    set(type, "file_system_type", "name", text(file_system));
    set(type, "file_system_type", "fs_flags", disk ? 1 : 0);
    set(block, "super_block", "s_type", type);
    set(block, "super_block", "s_dev", device);
    return block;
}

std::uint64_t ProcessGuest::inode(std::uint64_t block, std::uint64_t number, std::uint64_t mode,
                                  std::uint64_t size) {
    const auto at = make("inode");
    set(at, "inode", "i_sb", block);
    set(at, "inode", "i_ino", number);
    set(at, "inode", "i_mode", mode);
    set(at, "inode", "i_size", size);
    set(at, "inode", "i_mapping", make("address_space"));
    return at;
}

std::uint64_t ProcessGuest::dentry(std::uint64_t above, std::string_view name, std::uint64_t of) {
    const auto at = make("dentry");
    set(at, "dentry", "d_parent", above == 0 ? at : above);
    set(at, "dentry", "d_name.name", text(name));
    set(at, "dentry", "d_name.len", name.size());
    set(at, "dentry", "d_inode", of);
    set(at, "dentry", "d_hash.pprev", above == 0 ? 0 : above);
    if (above != 0) {
        set(at, "dentry", "d_sib", get(above, "dentry", "d_children"));
        set(above, "dentry", "d_children", field(at, "dentry", "d_sib"));
    }
    return at;
}

std::uint64_t ProcessGuest::mount(std::uint64_t of_root, os::GuestPath on) {
    const auto at = make("mount");
    const auto inner = field(0, "mount", "mnt");
    const auto above = on.mount == 0 ? at : on.mount - inner;
    set(at, "mount", "mnt_parent", above);
    set(at, "mount", "mnt_mountpoint", on.mount == 0 ? of_root : on.dentry);
    set(at + inner, "vfsmount", "mnt_root", of_root);
    set(at, "mount", "mnt_mounts", field(at, "mount", "mnt_mounts"));
    if (on.mount != 0) {
        set(at, "mount", "mnt_child", get(above, "mount", "mnt_mounts"));
        set(above, "mount", "mnt_mounts", field(at, "mount", "mnt_child"));
    }
    return at + inner;
}

std::uint64_t ProcessGuest::file(const os::GuestPath& path) {
    const auto at = make("file");
    set(at, "file", "f_inode", get(path.dentry, "dentry", "d_inode"));
    set(field(at, "file", "f_path"), "path", "mnt", path.mount);
    set(field(at, "file", "f_path"), "path", "dentry", path.dentry);
    return at;
}

std::uint64_t& ProcessGuest::cache_entry(std::uint64_t of, std::uint64_t index) {
    const auto mapping = get(of, "inode", "i_mapping");
    if (get(mapping, "address_space", "i_pages.xa_head") == 0) {
        set(mapping, "address_space", "i_pages.xa_head", make("xa_node") | root_mark);
    }
    const auto node = get(mapping, "address_space", "i_pages.xa_head") & ~std::uint64_t{3};
    const VirtualAddress at{field(node, "xa_node", "slots") + 8 * index};
    return *reinterpret_cast<std::uint64_t*>(guest.bytes(at, 8).data());
}

MutableBytes ProcessGuest::page(std::uint64_t of, std::uint64_t index) {
    const auto at = guest.in_heap(page_bytes, page_bytes);
    const auto folio = vmemmap_ + (raw(guest.physical_of(at)) / page_bytes) * page_struct_bytes;
    set(folio, "folio", "flags", uptodate);
    set(folio, "folio", "index", index);
    cache_entry(of, index) = folio;
    return guest.bytes(at, page_bytes);
}

void ProcessGuest::make_files() {
    in_memory = super_block("rootfs", 2, false);
    on_disk = super_block("ext4", 0x800001, true);
    const auto top = dentry(0, "/", inode(in_memory, 1, folder));
    root = {mount(top), top};
    bin = dentry(top, "bin", inode(in_memory, 2, folder));
    program = inode(in_memory, 3, regular, 2 * page_bytes + 10);
    dentry(bin, "program", program);
    const auto at = dentry(top, "mnt", inode(in_memory, 4, folder));
    const auto disk = dentry(0, "/", inode(on_disk, 2, folder));
    mounted = {mount(disk, {root.mount, at}), disk};
    data = inode(on_disk, 12, regular, 4 * page_bytes);
    dentry(disk, "data", data);
    const auto short_link = inode(in_memory, 5, link, 3);
    set(short_link, "inode", "i_link", text("bin"));
    dentry(top, "link", short_link);
    for (const auto* of : {"root", "pwd"}) {
        set(field(fs, "fs_struct", of), "path", "mnt", root.mount);
        set(field(fs, "fs_struct", of), "path", "dentry", of == std::string_view{"pwd"} ? bin : top);
    }
}

std::uint64_t ProcessGuest::map(std::uint64_t start, std::uint64_t pages, std::uint64_t flags,
                                std::uint64_t of_file, std::uint64_t page_offset) {
    const auto vma = make("vm_area_struct");
    for (const auto& [name, value] : std::initializer_list<std::pair<std::string_view, std::uint64_t>>{
             {"vm_start", start},
             {"vm_end", start + pages * page_bytes},
             {"vm_mm", mm},
             {"vm_flags", flags},
             {"vm_file", of_file},
             {"vm_pgoff", page_offset}}) {
        set(vma, "vm_area_struct", name, value);
    }
    if (of_file != 0) set(vma, "vm_area_struct", "vm_ops", make("vm_operations_struct"));
    // A gap, and the mapping.
    const auto put = [&](std::string_view array, std::size_t index, std::uint64_t value) {
        guest.put(VirtualAddress{field(leaf, "maple_range_64", array) + 8 * index}, value);
    };
    put("pivot", mapped_, start - 1);
    put("pivot", mapped_ + 1, start + pages * page_bytes - 1);
    put("slot", mapped_ + 1, vma);
    mapped_ += 2;
    put("pivot", mapped_, ~std::uint64_t{0});
    return vma;
}

void ProcessGuest::make_mappings() {
    leaf = make("maple_range_64");
    set(mm, "mm_struct", "mm_mt.ma_root", leaf | leaf_mark | root_mark);
    const auto of_program =
        file({root.mount, get(bin, "dentry", "d_children") - field(0, "dentry", "d_sib")});
    const auto of_data =
        file({mounted.mount, get(mounted.dentry, "dentry", "d_children") - field(0, "dentry", "d_sib")});
    set(mm, "mm_struct", "exe_file", of_program);
    text_vma = map(0x400000, 3, read | execute, of_program);
    data_vma = map(0x500000, 4, read | may_share, of_data);
    anonymous_vma = map(0x600000, 4, read | write);
    map(0x700000, 1, read | write);  // heap
    map(0x7ffd'0000'0000, 2, read | write);
    for (const auto& [name, value] :
         std::initializer_list<std::pair<std::string_view, std::uint64_t>>{{"start_brk", 0x700000},
                                                                           {"brk", 0x701000},
                                                                           {"start_stack", 0x7ffd'0000'1f00},
                                                                           {"start_code", 0x400000},
                                                                           {"end_code", 0x400800},
                                                                           {"total_vm", 14},
                                                                           {"exec_vm", 3}}) {
        set(mm, "mm_struct", name, value);
    }
}

MutableBytes ProcessGuest::present(std::uint64_t address) {
    const auto at = guest.in_heap(page_bytes, page_bytes);
    guest.map(tables_, VirtualAddress{address}, guest.physical_of(at), page_bytes, true);
    return guest.bytes(at, page_bytes);
}

std::uint64_t& ProcessGuest::entry(std::uint64_t address) {
    std::uint64_t table = raw(tables_);
    for (const unsigned shift : {39U, 30U, 21U}) {
        const auto at = PhysicalAddress{table + (address >> shift & 511) * 8};
        std::memcpy(&table, guest.memory().bytes(at, 8).data(), 8);
        table &= 0x000f'ffff'ffff'f000;
    }
    const auto at = PhysicalAddress{table + (address >> 12U & 511) * 8};
    return *reinterpret_cast<std::uint64_t*>(guest.memory().bytes(at, 8).data());
}

std::string ProcessGuest::proc(std::string_view name) {
    const auto found = processes->proc_file(task, name);
    return found ? *found : "error: " + found.error().message;
}

std::string ProcessGuest::memory(std::uint64_t address, std::size_t size) {
    const auto space = processes->readable_space(task);
    if (!space) return "error: " + space.error().message;
    std::string out(size, '?');
    const auto count = (*space)->read_some(VirtualAddress{address}, std::as_writable_bytes(std::span{out}));
    return count ? out.substr(0, *count) : "error: " + count.error().message;
}

std::string ProcessGuest::content(std::string_view path, std::uint64_t offset, std::size_t size) {
    const auto found = processes->find_file(task, path);
    if (!found) return "error: " + found.error().message;
    std::string out(size, '?');
    const auto count = processes->read_file(*found, offset, std::as_writable_bytes(std::span{out}));
    return count ? out.substr(0, *count) : "error: " + count.error().message;
}

}  // namespace exo::test
