#include "tests/support/qemu_guest.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstring>
#include <memory>

#include "backends/arch/x86_64.h"

namespace exo::test {
namespace {

// hw/i386/pc_q35.c: RAM below 4 GiB ends at 0xb0000000, or at 0x80000000 if there is more than that.
constexpr std::uint64_t low_limit = 0xb000'0000;
constexpr std::uint64_t low_when_split = 0x8000'0000;
constexpr std::uint64_t high_start = 0x1'0000'0000;

std::optional<std::uint64_t> parse_hex(std::string_view text) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    if (error != std::errc{} || end == text.data()) return std::nullopt;
    return value;
}

// The word that follows `key` at the start of a line or after a space; skips spaces and '='.
std::string_view word_after(std::string_view text, std::string_view key) {
    for (auto at = text.find(key); at != text.npos; at = text.find(key, at + 1)) {
        if (at > 0 && text[at - 1] != ' ' && text[at - 1] != '\n') continue;
        auto rest = text.substr(at + key.size());
        const auto begin = rest.find_first_not_of(" =");
        if (begin == 0 || begin == rest.npos) continue;
        rest.remove_prefix(begin);
        return rest.substr(0, rest.find_first_of(" \r\n"));
    }
    return {};
}

std::string_view second_word(std::string_view text, std::string_view key) {
    const auto first = word_after(text, key);
    if (first.empty()) return {};
    std::string_view rest = text.substr(static_cast<std::size_t>(first.data() + first.size() - text.data()));
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
    return rest.substr(0, rest.find_first_of(" \r\n"));
}

struct Printed {
    std::string_view key;
    RegisterNumber number;
    bool second = false;  // the base of a segment: the word after the selector
};

constexpr auto printed = std::to_array<Printed>({
    {"RAX", x86::rax},
    {"RBX", x86::rbx},
    {"RCX", x86::rcx},
    {"RDX", x86::rdx},
    {"RSI", x86::rsi},
    {"RDI", x86::rdi},
    {"RBP", x86::rbp},
    {"RSP", x86::rsp},
    {"R8", x86::r8},
    {"R9", x86::r9},
    {"R10", x86::r10},
    {"R11", x86::r11},
    {"R12", x86::r12},
    {"R13", x86::r13},
    {"R14", x86::r14},
    {"R15", x86::r15},
    {"RIP", x86::rip},
    {"RFL", x86::eflags},
    {"CS", x86::cs},
    {"SS", x86::ss},
    {"DS", x86::ds},
    {"ES", x86::es},
    {"FS", x86::fs},
    {"GS", x86::gs},
    {"FS", x86::fs_base, true},
    {"GS", x86::gs_base, true},
    {"CR0", x86::cr0},
    {"CR2", x86::cr2},
    {"CR3", x86::cr3},
    {"CR4", x86::cr4},
    {"EFER", x86::efer},
    {"GDT", x86::gdt_base},
    {"IDT", x86::idt_base},
    {"TR", x86::tr_base, true},
    {"TR", x86::tr_selector},
});

}  // namespace

RamFile::RamFile(const std::byte* base, std::uint64_t size) : base_(base), size_(size) {
    const std::uint64_t low = size > low_limit ? low_when_split : size;
    regions_.push_back({PhysicalAddress{0}, low, MemoryRegion::Kind::ram, "ram"});
    if (size > low)
        regions_.push_back({PhysicalAddress{high_start}, size - low, MemoryRegion::Kind::ram, "ram"});
}

RamFile::~RamFile() { ::munmap(const_cast<std::byte*>(base_), size_); }

Result<std::unique_ptr<RamFile>> RamFile::open(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail(Errc::bad_request, "cannot open " + path + ": " + std::strerror(errno));
    struct stat status{};
    void* base = MAP_FAILED;
    if (::fstat(fd, &status) == 0 && status.st_size > 0) {
        base = ::mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_SHARED, fd, 0);
    }
    ::close(fd);
    if (base == MAP_FAILED) return fail(Errc::bad_request, "cannot map " + path);
    return std::unique_ptr<RamFile>{
        new RamFile{static_cast<const std::byte*>(base), static_cast<std::uint64_t>(status.st_size)}};
}

Result<std::size_t> RamFile::read_some(PhysicalAddress address, MutableBytes out) {
    if (out.empty()) return 0;
    using clock = std::chrono::steady_clock;
    ++reads_;
    if (read_cost_ > 0) {
        const auto until = clock::now() + std::chrono::duration<double, std::micro>{read_cost_};
        while (clock::now() < until) {
        }
    }
    std::uint64_t offset = 0;
    for (const MemoryRegion& region : regions_) {
        if (raw(address) >= raw(region.start) && raw(address) < region.end()) {
            offset += raw(address) - raw(region.start);
            const auto count = std::min<std::uint64_t>(out.size(), region.end() - raw(address));
            std::memcpy(out.data(), base_ + offset, count);
            bytes_read_ += count;
            return count;
        }
        offset += region.size;
    }
    return fail(Errc::bad_address, hex(address) + " is in no RAM");
}

Result<std::size_t> RamFile::write_some(PhysicalAddress address, ConstBytes) {
    return fail(Errc::unsupported, "the RAM file is read-only: " + hex(address));
}

std::vector<RegisterSet> parse_info_registers(std::string_view text) {
    std::vector<RegisterSet> vcpus;
    for (auto at = text.find("CPU#"); at != text.npos;) {
        const auto next = text.find("CPU#", at + 1);
        const auto part = text.substr(at, next == text.npos ? next : next - at);
        RegisterSet registers{x86::layout()};
        for (const Printed& row : printed) {
            const auto value = parse_hex(row.second ? second_word(part, row.key) : word_after(part, row.key));
            if (value) registers.set(row.number, *value);
        }
        vcpus.push_back(std::move(registers));
        at = next;
    }
    return vcpus;
}

}  // namespace exo::test
