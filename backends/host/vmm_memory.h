// Guest memory as it lies in a VMM's process: read and written from outside, whoever knows what lies where.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "backends/api/memory.h"
#include "backends/host/process.h"
#include "backends/host/shared_file.h"

namespace exo {

// A range of a VMM's addresses. Where it is a mapping of a file that could be opened a second time, reads go
// to the file: that needs no system call for small ones, and allocates nothing.
struct HostRange {
    std::uint64_t host = 0;            // address in the VMM; 0: nowhere
    std::uint64_t size = 0;            // bytes
    std::shared_ptr<SharedFile> file;  // null: by process_vm_readv
    std::uint64_t file_offset = 0;     // of the range's first byte
};

class VmmMemory {
public:
    // `vmm` is how messages call it: "QEMU". `process` must outlive this.
    VmmMemory(const Process& process, std::string vmm) : process_(&process), vmm_(std::move(vmm)) {}

    // Opens the files of those ranges that lie in one shared mapping of one.
    void find_files(std::span<HostRange* const> ranges) const;
    void find_files(std::span<HostRange* const> ranges, std::span<const Mapping> mappings) const;

    // Bytes copied, > 0, or -errno: EFAULT if there is nothing.
    [[nodiscard]] ssize_t read(const HostRange& range, std::uint64_t offset, MutableBytes out) const;
    [[nodiscard]] ssize_t write(const HostRange& range, std::uint64_t offset, ConstBytes in) const;

    // A fragment, and where all of it lies in the process.
    struct Direct {
        PhysicalMemory::Fragment* fragment = nullptr;
        std::uint64_t host = 0;
    };
    // With one system call for many. Those that it did not get as far as have `read` 0 afterwards.
    void read_at_once(std::span<const Direct> fragments) const;

    // What read() and write() failed with, in words; `name` is of the region that has `address`.
    [[nodiscard]] Error error(ssize_t result, PhysicalAddress address, std::string_view name) const;
    [[nodiscard]] Error gone() const;
    [[nodiscard]] bool alive() const { return process_->alive(); }
    [[nodiscard]] std::vector<Mapping> mappings() const;
    // "mmap of a shared memfd", "process_vm_readv"
    [[nodiscard]] static std::string access_method(const HostRange& range);

private:
    const Process* process_;
    std::string vmm_;
};

}  // namespace exo
