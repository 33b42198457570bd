// Guest memory, by guest-physical address (PhysicalMemory) and by virtual address (AddressSpace).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/api/result.h"

namespace exo {

// Strong types: the two kinds of address must not be mixed up.
enum class PhysicalAddress : std::uint64_t {};
enum class VirtualAddress : std::uint64_t {};

constexpr std::uint64_t raw(PhysicalAddress a) { return static_cast<std::uint64_t>(a); }
constexpr std::uint64_t raw(VirtualAddress a) { return static_cast<std::uint64_t>(a); }
constexpr PhysicalAddress operator+(PhysicalAddress a, std::uint64_t n) {
    return PhysicalAddress{raw(a) + n};
}
constexpr VirtualAddress operator+(VirtualAddress a, std::uint64_t n) { return VirtualAddress{raw(a) + n}; }

using MutableBytes = std::span<std::byte>;
using ConstBytes = std::span<const std::byte>;

inline std::string_view as_text(ConstBytes bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct MemoryRegion {
    enum class Kind : std::uint8_t { ram, rom, mmio };
    PhysicalAddress start{};
    std::uint64_t size = 0;  // bytes
    Kind kind = Kind::ram;
    std::string name;  // as the hypervisor calls it: "pc.ram", "pc.bios"

    [[nodiscard]] std::uint64_t end() const { return raw(start) + size; }
};

class PhysicalMemory {
public:
    // A piece of a scattered read: `out` is filled from its start, `read` bytes of it.
    struct Fragment {
        PhysicalAddress address{};
        MutableBytes out;
        std::size_t read = 0;
    };

    PhysicalMemory() = default;
    PhysicalMemory(const PhysicalMemory&) = delete;
    PhysicalMemory& operator=(const PhysicalMemory&) = delete;
    virtual ~PhysicalMemory() = default;

    // Reads as far as memory goes: the count of bytes read, 0 < count <= out.size(), or bad_address if
    // the first byte cannot be read. Bytes are never made up: no zeros for a hole. An empty `out` is 0.
    // MMIO is not read, since a read may change the device. Usable while the guest runs.
    virtual Result<std::size_t> read_some(PhysicalAddress address, MutableBytes out) = 0;

    // Each fragment as far as read_some() goes; 0 where that fails. Backends to which a read is a system call
    // need one for many.
    virtual void read_scattered(std::span<Fragment> fragments);

    // As read_some. Not journalled: callers that must undo keep the old bytes themselves.
    virtual Result<std::size_t> write_some(PhysicalAddress address, ConstBytes in) = 0;

    // Whether page tables hold other addresses than this memory has: those of a paravirtualised guest of Xen
    // hold the machine's, while its kernel counts its own memory from 0.
    [[nodiscard]] virtual bool has_machine_addresses() const { return false; }
    // Where here lies what an entry of a page table points at; bad_address if it is not the guest's.
    virtual Result<PhysicalAddress> from_machine(PhysicalAddress address) { return address; }

    // Nothing is asked for a while: what is kept only for the next look, and that others may see, goes.
    virtual void release() {}

    // Sorted by start, disjoint. What lies in none of them is a hole.
    [[nodiscard]] virtual std::span<const MemoryRegion> regions() const = 0;

    // All of it or an error that names the first address that failed.
    Result<void> read(PhysicalAddress address, MutableBytes out);
    Result<void> write(PhysicalAddress address, ConstBytes in);
};

struct Translation {
    PhysicalAddress physical{};
    std::uint64_t page_size = 0;  // bytes of the leaf: 4 KiB, 2 MiB, 1 GiB
    bool writable = false;
    bool user = false;
    bool executable = false;
    bool read_only = false;  // also to a debugger: what is there is not this space's alone

    // How far the mapping is contiguous from `physical` on, within this leaf.
    [[nodiscard]] std::uint64_t left_in_page() const { return page_size - (raw(physical) & (page_size - 1)); }
};

class AddressSpace {
public:
    AddressSpace() = default;
    AddressSpace(const AddressSpace&) = delete;
    AddressSpace& operator=(const AddressSpace&) = delete;
    virtual ~AddressSpace() = default;

    virtual Result<Translation> translate(VirtualAddress address) = 0;
    [[nodiscard]] virtual PhysicalMemory& physical() = 0;

    // The lowest mapped address at or above `address`; nothing if there is none, or none near enough to be
    // found in bounded time.
    virtual std::optional<VirtualAddress> next_mapped(VirtualAddress address);

    // Translations that were kept may not be true any more: the guest ran, or its page tables were written.
    virtual void forget() {}

    // Same contract as PhysicalMemory::read_some / write_some, across page borders. Writes to what is
    // Translation::read_only are denied.
    Result<std::size_t> read_some(VirtualAddress address, MutableBytes out);
    Result<std::size_t> write_some(VirtualAddress address, ConstBytes in);
    Result<void> read(VirtualAddress address, MutableBytes out);
    Result<void> write(VirtualAddress address, ConstBytes in);

    // One little-endian trivially copyable value.
    template <class T>
    Result<T> read_value(VirtualAddress address) {
        T value{};
        CHECK_OK(read(address, std::as_writable_bytes(std::span{&value, 1})));
        return value;
    }

    // A NUL-terminated string of at most `limit` bytes, without the NUL. Stops at unreadable memory
    // with an error only if nothing was read.
    Result<std::string> read_string(VirtualAddress address, std::size_t limit);
};

// A run of addresses that are all mapped with the same permissions, or all unmapped.
struct MappedRange {
    VirtualAddress start{};
    std::uint64_t size = 0;              // bytes, never 0
    std::optional<Translation> mapping;  // of `start`; nothing where the range is unmapped
};

// The range that holds `address`, from its page's start on; longer ranges may be given in parts.
MappedRange mapped_range(AddressSpace& space, VirtualAddress address);

// "0xffffffff81000000": how addresses look in every message.
std::string hex(std::uint64_t value);
inline std::string hex(PhysicalAddress a) { return hex(raw(a)); }
inline std::string hex(VirtualAddress a) { return hex(raw(a)); }

}  // namespace exo
