#include "backends/host/vmm_memory.h"

#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <vector>

namespace exo {
namespace {

void* remote_pointer(std::uint64_t host) { return reinterpret_cast<void*>(host); }

// -errno where nothing was copied.
ssize_t counted(ssize_t count) {
    if (count > 0) return count;
    return count == 0 ? -EFAULT : -errno;
}

}  // namespace

std::vector<Mapping> VmmMemory::mappings() const {
    return parse_maps(read_proc_file("/proc/" + std::to_string(process_->pid()) + "/maps"));
}

void VmmMemory::find_files(std::span<HostRange* const> ranges) const { find_files(ranges, mappings()); }

void VmmMemory::find_files(std::span<HostRange* const> ranges, std::span<const Mapping> mappings) const {
    std::vector<std::pair<std::uint64_t, std::shared_ptr<SharedFile>>> opened;  // by inode
    for (HostRange* range : ranges) {
        range->file = nullptr;
        if (range->host == 0) continue;
        const auto mapping = std::ranges::find_if(mappings, [&](const Mapping& candidate) {
            return candidate.start <= range->host && range->host + range->size <= candidate.end;
        });
        if (mapping == mappings.end() || !mapping->shared || mapping->inode == 0) continue;
        const auto known =
            std::ranges::find_if(opened, [&](const auto& entry) { return entry.first == mapping->inode; });
        auto file = known != opened.end() ? known->second : SharedFile::open(process_->pid(), *mapping);
        if (known == opened.end()) opened.emplace_back(mapping->inode, file);
        const auto offset = range->host - mapping->start + mapping->offset;
        if (!file || offset + range->size > file->size()) continue;
        range->file = std::move(file);
        range->file_offset = offset;
    }
}

ssize_t VmmMemory::read(const HostRange& range, std::uint64_t offset, MutableBytes out) const {
    if (range.file) return counted(range.file->read(range.file_offset + offset, out));
    const iovec local{out.data(), out.size()};
    const iovec remote{remote_pointer(range.host + offset), out.size()};
    return counted(::process_vm_readv(process_->pid(), &local, 1, &remote, 1, 0));
}

ssize_t VmmMemory::write(const HostRange& range, std::uint64_t offset, ConstBytes in) const {
    if (range.file) return counted(range.file->write(range.file_offset + offset, in));
    const iovec local{const_cast<std::byte*>(in.data()), in.size()};
    const iovec remote{remote_pointer(range.host + offset), in.size()};
    return counted(::process_vm_writev(process_->pid(), &local, 1, &remote, 1, 0));
}

void VmmMemory::read_at_once(std::span<const Direct> fragments) const {
    std::vector<iovec> local;
    std::vector<iovec> remote;
    for (const auto& [fragment, host] : fragments) {
        fragment->read = 0;
        local.push_back({fragment->out.data(), fragment->out.size()});
        remote.push_back({remote_pointer(host), fragment->out.size()});
    }
    for (std::size_t at = 0; at < fragments.size(); at += IOV_MAX) {
        const auto count = std::min<std::size_t>(fragments.size() - at, IOV_MAX);
        const ssize_t bytes = ::process_vm_readv(process_->pid(), &local[at], count, &remote[at], count, 0);
        auto left = static_cast<std::size_t>(std::max<ssize_t>(bytes, 0));
        for (std::size_t i = at; i < at + count; ++i) {
            PhysicalMemory::Fragment& fragment = *fragments[i].fragment;
            if (left < fragment.out.size()) break;
            fragment.read = fragment.out.size();
            left -= fragment.read;
        }
    }
}

Error VmmMemory::gone() const { return {Errc::target_gone, "the guest is gone: " + vmm_ + " has ended"}; }

Error VmmMemory::error(ssize_t result, PhysicalAddress address, std::string_view name) const {
    const std::string place = "memory of " + vmm_ + " at " + hex(address) + " (" + std::string{name} + ")";
    switch (-result) {
        case EPERM:
        case EACCES:
            return {Errc::denied, place + ": permission denied; run as root or as " + vmm_ +
                                      "'s user, `exogdb doctor` says more"};
        case ESRCH: return gone();
        default: return {Errc::bad_address, place + ": " + std::strerror(static_cast<int>(-result))};
    }
}

std::string VmmMemory::access_method(const HostRange& range) {
    if (!range.file) return "process_vm_readv";
    return range.file->mapped() ? "mmap of a shared memfd" : "pread of a shared file";
}

}  // namespace exo
