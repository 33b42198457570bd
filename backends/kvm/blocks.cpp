#include "backends/kvm/blocks.h"

#include <algorithm>
#include <string_view>

namespace exo::kvm {
namespace {

// Files under /dev that are memory; the others are devices.
constexpr std::string_view memory_files[] = {"/dev/shm/", "/dev/hugepages", "/dev/zero"};
// Anonymous memory can be named by prctl(PR_SET_VMA): its names stand in brackets, as those of heap and
// stack.
constexpr std::string_view anonymous_names[] = {"[anon:", "[anon_shmem:"};

// A private mapping of a file is guest memory only if it is large (QEMU's memory-backend-file,share=off); the
// others are the data of libraries.
constexpr std::uint64_t least_private_file = 16ULL << 20;

bool starts_with_any(std::string_view path, std::span<const std::string_view> prefixes) {
    return std::ranges::any_of(prefixes, [&](std::string_view prefix) { return path.starts_with(prefix); });
}

bool may_be_ram(const Mapping& mapping) {
    if (!mapping.readable || !mapping.writable || mapping.executable) return false;
    const std::string_view path = mapping.path;
    if (path.starts_with('[')) return starts_with_any(path, anonymous_names);
    if (path.starts_with("anon_inode:")) return false;  // kvm-vcpu, io_uring, perf
    if (path.starts_with("/dev/") && !starts_with_any(path, memory_files)) return false;
    if (mapping.inode != 0 && !mapping.shared) return mapping.end - mapping.start >= least_private_file;
    return true;
}

// The kernel keeps two mappings apart where their flags differ (mbind, madvise of a part), or where they have
// nothing to do with each other; the latter seldom begin at a huge page.
bool continues(const Mapping& before, const Mapping& next) {
    constexpr std::uint64_t huge_page = 2ULL << 20;
    if (before.end != next.start || before.shared != next.shared || before.inode != next.inode ||
        before.device != next.device)
        return false;
    if (before.inode != 0) return before.offset + (before.end - before.start) == next.offset;
    return next.start % huge_page == 0 && before.end - before.start >= huge_page &&
           next.end - next.start >= huge_page;
}

}  // namespace

std::vector<Block> ram_blocks(std::span<const Mapping> mappings) {
    std::vector<Block> blocks;
    const Mapping* before = nullptr;
    for (const Mapping& mapping : mappings) {
        if (!may_be_ram(mapping)) continue;
        if (before != nullptr && continues(*before, mapping)) {
            blocks.back().seams.push_back(mapping.start);
            blocks.back().end = mapping.end;
        } else {
            blocks.push_back({mapping.start, mapping.end, {}});
        }
        before = &mapping;
    }
    std::ranges::sort(blocks, [](const Block& a, const Block& b) {
        return a.size() != b.size() ? a.size() > b.size() : a.start < b.start;
    });
    return blocks;
}

}  // namespace exo::kvm
