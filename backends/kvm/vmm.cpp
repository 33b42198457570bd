#include "backends/kvm/vmm.h"

#include <sys/syscall.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>

namespace exo::kvm {
namespace {

constexpr std::array<std::byte, 2> syscall_instruction{std::byte{0x0f}, std::byte{0x05}};

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
    const auto rip = TRY(thread.registers()).rip;
    for (const auto site : {rip - syscall_instruction.size(), rip})
        if (TRY(memory.get<std::array<std::byte, 2>>(site)) == syscall_instruction)
            return call_at(thread, site, number, arguments);
    return fail(Errc::backend,
                "the VMM's thread " + std::to_string(thread.tid()) + " does not stand at a system call");
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
