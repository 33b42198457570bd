#include "backends/kvm/vmm.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>

namespace exo::kvm {
namespace {

constexpr std::uint64_t page_size = 4096;
constexpr std::uint64_t record_stride = 512;
static_assert(sizeof(ThreadRecord) <= record_stride);
constexpr std::array<std::byte, 2> syscall_instruction{std::byte{0x0f}, std::byte{0x05}};

// As in the comment of Springboard.
constexpr auto board_code = std::to_array<std::uint64_t>({
    0x0022b8c38948050f,  // syscall; mov %rax,%rbx; mov $SYS_pause,%eax …
    0x9090f7eb050f0000,  // … syscall; jmp again; nop; nop
});

Error memory_error(const char* what, std::uint64_t address) {
    const int error = errno;
    char place[32];
    std::snprintf(place, sizeof place, "%#llx", static_cast<unsigned long long>(address));
    const std::string text = std::string{what} + " the VMM's memory at " + place + ": ";
    if (error == ESRCH) return vmm_gone();
    if (error == EPERM)
        return {Errc::denied, text + "permission denied; run as root, or as its user with CAP_SYS_PTRACE"};
    return {Errc::bad_address, text + std::strerror(error)};
}

std::uint64_t round_up(std::uint64_t size) { return (size + page_size - 1) & ~(page_size - 1); }

Result<std::uint64_t> map_pages(TracedThread& thread, const RemoteMemory& memory, std::uint64_t size,
                                int protection) {
    const auto arguments = std::to_array<std::uint64_t>(
        {0, size, static_cast<std::uint64_t>(protection), MAP_PRIVATE | MAP_ANONYMOUS, ~std::uint64_t{0}, 0});
    const auto result = TRY(call_in_place(thread, memory, SYS_mmap, arguments));
    if (result < 0 && result > -static_cast<std::int64_t>(page_size))
        return fail(Errc::denied, std::string{"mapping a page in the VMM: "} +
                                      std::strerror(static_cast<int>(-result)) +
                                      "; its sandbox (seccomp, SELinux) does not let it");
    return static_cast<std::uint64_t>(result);
}

Result<void> unmap(TracedThread& thread, const RemoteMemory& memory, std::uint64_t address,
                   std::uint64_t size) {
    CHECK_OK(call_in_place(thread, memory, SYS_munmap, std::to_array<std::uint64_t>({address, size})));
    return {};
}

}  // namespace

Error vmm_gone() { return {Errc::target_gone, "the guest is gone: its VMM has ended"}; }

Result<void> RemoteMemory::read(std::uint64_t address, std::span<std::byte> out) const {
    const iovec local{out.data(), out.size()};
    const iovec remote{reinterpret_cast<void*>(address), out.size()};
    const auto count = ::process_vm_readv(pid_, &local, 1, &remote, 1, 0);
    if (count == static_cast<ssize_t>(out.size())) return {};
    if (count >= 0) errno = EFAULT;
    return fail(memory_error("reading", address));
}

Result<void> RemoteMemory::write(std::uint64_t address, std::span<const std::byte> in) const {
    const iovec local{const_cast<std::byte*>(in.data()), in.size()};
    const iovec remote{reinterpret_cast<void*>(address), in.size()};
    const auto count = ::process_vm_writev(pid_, &local, 1, &remote, 1, 0);
    if (count == static_cast<ssize_t>(in.size())) return {};
    if (count >= 0) errno = EFAULT;
    return fail(memory_error("writing", address));
}

std::uint64_t Springboard::data_size(std::uint32_t records) {
    return round_up(records * (record_stride + argument_size));
}

std::uint64_t Springboard::record(std::uint32_t index) const { return data + index * record_stride; }

std::uint64_t Springboard::arguments(std::uint32_t index) const {
    return data + records * record_stride + index * argument_size;
}

Result<std::int64_t> call_at(TracedThread& thread, std::uint64_t site, std::int64_t number,
                             std::span<const std::uint64_t> arguments) {
    const auto before = TRY(thread.registers());
    auto registers = before;
    registers.rip = site;
    registers.rax = static_cast<std::uint64_t>(number);
    registers.orig_rax = ~std::uint64_t{0};  // of no call: nothing to be restarted
    const std::array places{&registers.rdi, &registers.rsi, &registers.rdx,
                            &registers.r10, &registers.r8,  &registers.r9};
    for (std::size_t i = 0; i < arguments.size() && i < places.size(); ++i) *places.at(i) = arguments[i];
    const auto mask = TRY(thread.signal_mask());
    CHECK_OK(thread.set_signal_mask(~std::uint64_t{0}));
    CHECK_OK(thread.set_registers(registers));
    for (int stop = 0; stop < 2; ++stop)  // entry and exit
        if (!TRY(thread.go_to_syscall())) return fail(vmm_gone());
    const auto after = TRY(thread.registers());
    CHECK_OK(thread.set_registers(before));
    CHECK_OK(thread.set_signal_mask(mask));
    return static_cast<std::int64_t>(after.rax);
}

Result<std::int64_t> call_in_place(TracedThread& thread, const RemoteMemory& memory, std::int64_t number,
                                   std::span<const std::uint64_t> arguments) {
    const auto site = TRY(thread.registers()).rip - syscall_instruction.size();
    if (TRY(memory.get<std::array<std::byte, 2>>(site)) != syscall_instruction)
        return fail(Errc::backend, "the VMM's thread " + std::to_string(thread.tid()) +
                                       " does not stand behind a system call");
    return call_at(thread, site, number, arguments);
}

Result<Springboard> build_springboard(TracedThread& thread, const RemoteMemory& memory,
                                      std::uint32_t records) {
    Springboard board;
    board.records = records;
    const std::uint64_t data =
        TRY(map_pages(thread, memory, Springboard::data_size(records), PROT_READ | PROT_WRITE));
    const auto code = map_pages(thread, memory, Springboard::code_size, PROT_READ | PROT_EXEC);
    if (!code) {
        static_cast<void>(unmap(thread, memory, data, Springboard::data_size(records)));
        return fail(code.error());
    }
    board.data = data;
    board.code = *code;
    for (std::size_t i = 0; i < board_code.size(); ++i)
        CHECK_OK(thread.poke(board.code + i * sizeof board_code[i], board_code.at(i)));
    for (std::uint32_t i = 0; i < records; ++i) CHECK_OK(memory.put(board.record(i), ThreadRecord{}));
    return board;
}

Result<void> remove_springboard(TracedThread& thread, const RemoteMemory& memory, const Springboard& board) {
    CHECK_OK(unmap(thread, memory, board.code, Springboard::code_size));
    return unmap(thread, memory, board.data, Springboard::data_size(board.records));
}

ThreadRegisters restarted(ThreadRegisters registers) {
    // include/linux/errno.h
    constexpr std::int64_t restart_sys = 512, restart_nointr = 513, restart_nohand = 514, restart_block = 516;
    const auto error = -static_cast<std::int64_t>(registers.rax);
    if (static_cast<std::int64_t>(registers.orig_rax) < 0) return registers;
    if (error == restart_sys || error == restart_nointr || error == restart_nohand)
        registers.rax = registers.orig_rax;
    else if (error == restart_block)
        registers.rax = SYS_restart_syscall;
    else
        return registers;
    registers.rip -= syscall_instruction.size();
    return registers;
}

}  // namespace exo::kvm
