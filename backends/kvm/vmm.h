// The VMM's process as the backend uses it: its memory, and system calls of its threads.
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>

#include "backends/host/process.h"
#include "backends/kvm/thread.h"

namespace exo::kvm {

// target_gone: the VMM's process has ended.
Error vmm_gone();

// All or nothing; by process_vm_readv(2) and process_vm_writev(2).
class RemoteMemory {
public:
    explicit RemoteMemory(pid_t pid) : pid_(pid) {}
    Result<void> read(std::uint64_t address, std::span<std::byte> out) const;
    Result<void> write(std::uint64_t address, std::span<const std::byte> in) const;

    template <class T>
    Result<T> get(std::uint64_t address) const {
        static_assert(std::is_trivially_copyable_v<T>);
        T value{};
        CHECK_OK(read(address, std::as_writable_bytes(std::span{&value, 1})));
        return value;
    }
    template <class T>
    Result<void> put(std::uint64_t address, const T& value) const {
        static_assert(std::is_trivially_copyable_v<T>);
        return write(address, std::as_bytes(std::span{&value, 1}));
    }

private:
    pid_t pid_;
};

// A system call of a stopped thread, made by the `syscall` instruction at `site`. The thread's registers are
// afterwards as they were.
Result<std::int64_t> call_at(TracedThread& thread, std::uint64_t site, std::int64_t number,
                             std::span<const std::uint64_t> arguments);
// The same, where it stands: just behind a `syscall` instruction, or at one that is to be made again. For
// what has to be done without a springboard.
Result<std::int64_t> call_in_place(TracedThread& thread, const RemoteMemory& memory, std::int64_t number,
                                   std::span<const std::uint64_t> arguments);

// orig_rax of a thread that is in no system call: none is made again.
inline constexpr std::uint64_t no_system_call = ~std::uint64_t{0};

// What the kernel does for a system call that was interrupted and is to be made again
// (arch/x86/kernel/signal.c, arch_do_signal_or_restart): it only does so on the way from the stop that
// interrupted it, and our thread has made other calls since.
ThreadRegisters restarted(ThreadRegisters registers);

}  // namespace exo::kvm
