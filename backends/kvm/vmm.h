// The VMM's process as the backend uses it: its memory, and two small mappings that are put into it while a
// debugger is attached.
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

// Where system calls are made in the VMM that are not its own.
//
// A thread that made one in the VMM's own code would, if exogdb were killed then, return from it into a VMM
// that takes its result for that of KVM_RUN, and KVM_EXIT_DEBUG for the guest's own exception. So they are
// made from a page of ours: a thread whose tracer dies comes out of its system call there, and stays in
// pause(2) until a guardian or `exogdb recover` puts it back.
//
//   code:  run:     syscall
//          after:   mov %rax, %rbx; again: mov $SYS_pause, %eax; syscall; jmp again
//   data:  a ThreadRecord for each vCPU, then room for arguments of ioctls
struct Springboard {
    std::uint64_t code = 0;  // address in the VMM; 0: not there
    std::uint64_t data = 0;
    std::uint32_t records = 0;

    static constexpr std::uint64_t code_size = 4096;
    static constexpr std::uint64_t after_offset = 2;
    static constexpr std::uint64_t argument_size = 16384;  // KVM_GET_XSAVE2 with AMX: 11008
    static std::uint64_t data_size(std::uint32_t records);

    [[nodiscard]] bool present() const { return code != 0; }
    [[nodiscard]] std::uint64_t after() const { return code + after_offset; }
    [[nodiscard]] bool holds(std::uint64_t rip) const { return rip >= code && rip < code + code_size; }
    [[nodiscard]] std::uint64_t record(std::uint32_t index) const;
    // Each vCPU has its own: several may be at work.
    [[nodiscard]] std::uint64_t arguments(std::uint32_t index) const;
};

// What a thread needs to go on in the VMM as if nothing had been. In the VMM's memory and not in a file,
// since it changes at each stop, and is of use only as long as the VMM lives.
struct ThreadRecord {
    static constexpr std::uint64_t magic_value = 0x64'72'6f'63'65'72'6f'65;  // "eorecord"
    std::uint64_t magic = magic_value;
    std::uint64_t tid = 0;          // 0: nothing to be put back
    std::uint64_t mask_saved = 0;   // whether signal_mask is what it was
    std::uint64_t signal_mask = 0;  // while the thread is away, all are blocked
    std::uint64_t halted = 0;       // the vCPU: KVM_MP_STATE_HALTED was set
    ThreadRegisters home{};         // to be given back, with the result that the VMM is to see in rax
};

// A system call of a stopped thread, made by the `syscall` instruction at `site`. The thread's registers are
// afterwards as they were.
Result<std::int64_t> call_at(TracedThread& thread, std::uint64_t site, std::int64_t number,
                             std::span<const std::uint64_t> arguments);
// The same, where it stands: just behind a `syscall` instruction. For what has
// to be done without a springboard. The thread's registers are afterwards as they were.
Result<std::int64_t> call_in_place(TracedThread& thread, const RemoteMemory& memory, std::int64_t number,
                                   std::span<const std::uint64_t> arguments);

// Maps it, by a thread that stands behind a `syscall`.
Result<Springboard> build_springboard(TracedThread& thread, const RemoteMemory& memory,
                                      std::uint32_t records);
Result<void> remove_springboard(TracedThread& thread, const RemoteMemory& memory, const Springboard& board);

// What the kernel does for a system call that was interrupted and is to be made again
// (arch/x86/kernel/signal.c, arch_do_signal_or_restart): it only does so on the way from the stop that
// interrupted it, and our thread has made other calls since.
ThreadRegisters restarted(ThreadRegisters registers);

}  // namespace exo::kvm
