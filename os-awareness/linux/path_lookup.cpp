#include "os-awareness/linux/path_lookup.h"

#include <string>
#include <vector>

#include "os-awareness/linux/constants.h"

namespace exo::os {
namespace {

constexpr int most_links = 40;  // MAXSYMLINKS, include/linux/namei.h
constexpr std::size_t longest_path = 4096;
constexpr std::size_t most_parts = 1024;          // of a path, links followed
constexpr std::size_t most_children = 1U << 20U;  // of a folder
constexpr std::size_t most_mounts = 1U << 17U;    // fs.mount-max is 100000

// Its parts, last first, so that they can be taken from the end.
void push_parts(std::vector<std::string>& parts, std::string_view path) {
    std::vector<std::string> found;
    while (!path.empty()) {
        const auto end = std::min(path.find('/'), path.size());
        if (end > 0) found.emplace_back(path.substr(0, end));
        path.remove_prefix(std::min(end + 1, path.size()));
    }
    parts.insert(parts.end(), found.rbegin(), found.rend());
}

}  // namespace

// A ring before 6.8 and an hlist since: both end where the link is 0 or leads back to the head.
Result<GuestPath> PathLookup::child(const GuestPath& folder, std::string_view name) const {
    const auto& layout = layout_->dentry;
    const auto head = raw(TRY(structures_->address(folder.dentry, layout.children)));
    auto node = TRY(structures_->value(folder.dentry, layout.children));
    for (std::size_t i = 0; node != 0 && node != head; ++i) {
        const auto dentry = node - layout.sibling.field.offset;
        if (i == most_children) {
            return fail(Errc::bad_data, "the children of a folder have no end at " + hex(dentry));
        }
        const auto length = TRY(structures_->value(dentry, layout.name_length));
        if (length == name.size() && TRY(paths_->component(dentry)) == name &&
            TRY(structures_->value(dentry, layout.hash)) != 0) {
            if (TRY(structures_->value(dentry, layout.inode)) == 0) {
                return fail(Errc::not_found, "there is no " + std::string{name});
            }
            return GuestPath{folder.mount, dentry};
        }
        node = TRY(structures_->value(dentry, layout.sibling));
    }
    return fail(Errc::not_found, "the kernel does not remember a " + std::string{name} + " there");
}

// What is mounted on it, and on that, the topmost; else `at` itself.
Result<GuestPath> PathLookup::mounted_on(GuestPath at) const {
    const auto& layout = layout_->mount;
    std::size_t steps = 0;
    for (bool covered = true; covered;) {
        covered = false;
        const auto mount = TRY(paths_->mount_of(at.mount));
        const auto head = raw(TRY(structures_->address(mount, layout.mounts)));
        auto node = TRY(structures_->value(mount, layout.mounts));
        while (node != 0 && node != head && !covered) {
            if (++steps > most_mounts) return fail(Errc::bad_data, "the mounts have no end");
            const auto child = node - layout.child.field.offset;
            if (TRY(structures_->value(child, layout.mountpoint)) == at.dentry) {
                at.mount = raw(TRY(structures_->address(child, layout.mount)));
                at.dentry = TRY(structures_->value(at.mount, layout.root));
                covered = true;
            }
            node = TRY(structures_->value(child, layout.child));
        }
    }
    return at;
}

// follow_dotdot(), fs/namei.c.
Result<GuestPath> PathLookup::parent(GuestPath at, const GuestPath& root) const {
    for (std::size_t i = 0; at != root && i < most_mounts; ++i) {
        if (TRY(structures_->value(at.mount, layout_->mount.root)) != at.dentry) {
            at.dentry = TRY(structures_->value(at.dentry, layout_->dentry.parent));
            return mounted_on(at);
        }
        const auto above = TRY(paths_->mountpoint(at.mount));
        if (above.mount == at.mount) break;
        at = above;
    }
    return at;
}

Result<std::string> PathLookup::link(std::uint64_t dentry) const {
    const auto address = TRY(structures_->value(dentry, layout_->dentry.inode));
    const auto inode = TRY(files_->inode(address));
    if ((inode.mode & file_type) != symbolic_link) return std::string{};
    if (inode.size == 0 || inode.size > longest_path) {
        return fail(Errc::bad_data, "a symbolic link of " + std::to_string(inode.size) + " bytes");
    }
    std::string text;
    if (TRY(structures_->value(address, layout_->inode.link)) != 0) {
        text = TRY(structures_->text_at(address, layout_->inode.link, longest_path));
    } else {  // page_get_link()
        text.resize(inode.size);
        text.resize(TRY(files_->read(inode, 0, std::as_writable_bytes(std::span{text}))));
    }
    if (text.empty()) return fail(Errc::bad_data, "a symbolic link without a text");
    return text;
}

Result<GuestPath> PathLookup::find(const GuestPath& root, std::string_view path) const {
    if (!path.starts_with('/')) return fail(Errc::not_found, "not an absolute path: " + std::string{path});
    std::vector<std::string> parts;
    push_parts(parts, path);
    GuestPath at = root;
    int links = 0;
    for (std::size_t steps = 0; !parts.empty(); ++steps) {
        if (steps == most_parts) return fail(Errc::bad_data, "a path of too many parts");
        const auto name = std::move(parts.back());
        parts.pop_back();
        if (name == ".") continue;
        if (name == "..") {
            at = TRY(parent(at, root));
            continue;
        }
        const auto next = TRY(mounted_on(TRY(child(at, name))));
        const auto target = TRY(link(next.dentry));
        if (target.empty()) {
            at = next;
            continue;
        }
        if (++links > most_links) return fail(Errc::not_found, "too many symbolic links");
        if (target.starts_with('/')) at = root;
        push_parts(parts, target);
    }
    return at;
}

}  // namespace exo::os
