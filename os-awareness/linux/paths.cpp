#include "os-awareness/linux/paths.h"

namespace exo::os {
namespace {

constexpr std::size_t longest_name = 4096;  // PATH_MAX
constexpr int most_components = 4096;       // of a path, with its mounts
constexpr std::string_view deleted = " (deleted)";

}  // namespace

Result<GuestPath> Paths::read(VirtualAddress address) const {
    return GuestPath{TRY(structures_->value(raw(address), layout_->path.mount)),
                     TRY(structures_->value(raw(address), layout_->path.dentry))};
}

// A struct backing_file has FMODE_BACKING in f_mode, which has been bit 25 and 24 (include/linux/fs.h), and
// either has been another's, too. A path through the mount of another file system than its own makes no
// sense: so it is seen whether there is one.
Result<GuestPath> Paths::of_file(std::uint64_t file) const {
    constexpr std::uint64_t may_be_backing = 3U << 24U;
    const auto& layout = layout_->file;
    const auto own = TRY(read(TRY(structures_->address(file, layout.path))));
    if (!layout.user_path || (TRY(structures_->value(file, layout.mode)) & may_be_backing) == 0) return own;
    const auto user = TRY(read(TRY(structures_->address(file, layout.user_path))));
    const auto of_mount = structures_->value(user.mount, layout_->mount.super_block);
    const auto of_dentry = structures_->value(user.dentry, layout_->dentry.super_block);
    return of_mount && of_dentry && *of_mount == *of_dentry && *of_mount != 0 ? user : own;
}

Result<std::string> Paths::component(std::uint64_t dentry) const {
    const auto length = TRY(structures_->value(dentry, layout_->dentry.name_length));
    if (length > longest_name) {
        return fail(Errc::bad_data,
                    "the name of the dentry at " + hex(dentry) + " has " + std::to_string(length) + " bytes");
    }
    std::string name(length, '\0');
    const auto at = TRY(structures_->value(dentry, layout_->dentry.name));
    CHECK_OK(structures_->space().read(VirtualAddress{at}, std::as_writable_bytes(std::span{name})));
    return name;
}

Result<std::uint64_t> Paths::mount_of(std::uint64_t vfsmount) const {
    const auto& mount = layout_->mount;
    CHECK_OK(structures_->address(vfsmount, mount.mount));  // that it is there
    return vfsmount - mount.mount.field.offset;
}

Result<GuestPath> Paths::mountpoint(std::uint64_t vfsmount) const {
    const auto mount = TRY(mount_of(vfsmount));
    const auto parent = TRY(structures_->value(mount, layout_->mount.parent));
    const auto at = TRY(structures_->value(mount, layout_->mount.mountpoint));
    return GuestPath{parent + layout_->mount.mount.field.offset, at};
}

// Of files that are in no folder: each kind has a function that makes a name (fs/d_path.c: d_path()). Empty
// for those that have none, or one that is not known here.
Result<std::string> Paths::made_name(std::uint64_t dentry) const {
    const auto operations = TRY(structures_->value(dentry, layout_->dentry.operations));
    if (operations == 0) return std::string{};
    const auto function = TRY(structures_->value(operations, layout_->dentry.dynamic_name));
    const auto symbol = function == 0 ? std::nullopt : symbols_->locate(VirtualAddress{function});
    if (!symbol || symbol->offset != 0) return std::string{};
    const auto inode = [&]() -> Result<std::string> {
        const auto at = TRY(structures_->value(dentry, layout_->dentry.inode));
        return "[" + std::to_string(TRY(structures_->value(at, layout_->inode.number))) + "]";
    };
    // simple_dname(): memfd_create(2), shared anonymous memory, System V shared memory.
    if (symbol->name == "simple_dname") return "/" + TRY(component(dentry)) + std::string{deleted};
    if (symbol->name == "anon_inodefs_dname") return "anon_inode:" + TRY(component(dentry));
    if (symbol->name == "sockfs_dname") return "socket:" + TRY(inode());
    if (symbol->name == "pipefs_dname") return "pipe:" + TRY(inode());
    return std::string{};
}

// fs/d_path.c: prepend_path().
Result<std::string> Paths::name(const GuestPath& path, const GuestPath& root) const {
    const auto& layout = *layout_;
    const auto is_root_dentry = [&](std::uint64_t dentry) -> Result<bool> {
        return TRY(structures_->value(dentry, layout.dentry.parent)) == dentry;
    };
    const bool parentless = TRY(is_root_dentry(path.dentry));
    if (!parentless || TRY(structures_->value(path.mount, layout.mount.root)) != path.dentry) {
        if (auto made = TRY(made_name(path.dentry)); !made.empty()) return made;
    }
    const bool unhashed = TRY(structures_->value(path.dentry, layout.dentry.hash)) == 0;
    std::string text;
    GuestPath at = path;
    for (int i = 0; at != root; ++i) {
        if (i == most_components) return fail(Errc::bad_data, "a path without end at " + hex(path.dentry));
        if (TRY(structures_->value(at.mount, layout.mount.root)) == at.dentry) {
            const auto above = TRY(mountpoint(at.mount));
            if (above.mount == at.mount) break;  // nothing is above it
            at = above;
            continue;
        }
        if (TRY(is_root_dentry(at.dentry))) break;
        text.insert(0, "/" + TRY(component(at.dentry)));
        if (text.size() > 2 * longest_name) return fail(Errc::bad_data, "a path of more than 8192 bytes");
        at.dentry = TRY(structures_->value(at.dentry, layout.dentry.parent));
    }
    if (text.empty()) text = "/";
    return text + std::string{unhashed && !parentless ? deleted : ""};
}

}  // namespace exo::os
