// Two small mappings that are put into the VMM while a debugger is attached.
//
// A thread that made a system call of ours in the VMM's own code would, if exogdb were killed then, return
// from it into a VMM that takes its result for that of KVM_RUN, and KVM_EXIT_DEBUG for the guest's own
// exception. So they are made from a page of ours: a thread whose tracer dies comes out of its system call
// there, and stays there until a guardian or `exogdb recover` puts it back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "backends/host/mapped_pages.h"
#include "backends/kvm/mailbox.h"
#include "backends/kvm/thread.h"
#include "backends/kvm/vmm.h"

namespace exo::kvm {

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

// Addresses in the VMM.
//   code:  a system call, and behind it a loop in pause(2): for one that is made under ptrace
//          the teller: a loop that carries out what is posted in the mailbox
//   data:  for each vCPU a ThreadRecord and a Mailbox; then for each room for arguments of ioctls
struct Springboard {
    std::uint64_t code = 0;  // 0: not there
    std::uint64_t data = 0;
    std::uint32_t records = 0;

    static constexpr std::uint64_t code_size = 4096;
    static constexpr std::uint64_t argument_size = 16384;  // KVM_GET_XSAVE2 with AMX: 11008
    static std::uint64_t data_size(std::uint32_t records);

    [[nodiscard]] bool present() const { return code != 0; }
    [[nodiscard]] bool holds(std::uint64_t rip) const { return rip >= code && rip < code + code_size; }
    // Just behind the system call.
    [[nodiscard]] std::uint64_t after() const;
    // A thread gets there with the mailbox' address in r12 and its `done` in r13.
    [[nodiscard]] std::uint64_t teller() const;
    // Just behind a system call of the teller's, whose result is in rax and nowhere else yet.
    [[nodiscard]] std::uint64_t teller_after() const;
    // Each vCPU has its own: several may be at work.
    [[nodiscard]] std::uint64_t record(std::uint32_t index) const { return data + record_offset(index); }
    [[nodiscard]] std::uint64_t mailbox(std::uint32_t index) const { return data + mailbox_offset(index); }
    [[nodiscard]] std::uint64_t arguments(std::uint32_t index) const { return data + argument_offset(index); }

    [[nodiscard]] static std::uint64_t record_offset(std::uint32_t index);
    [[nodiscard]] static std::uint64_t mailbox_offset(std::uint32_t index);
    [[nodiscard]] std::uint64_t argument_offset(std::uint32_t index) const;
};

// What the KVM_RUN of descriptor `fd` came back with that a stopped thread on the springboard made last, if
// that was its last system call; -EINTR if it has not begun.
struct LastRun {
    bool made = false;
    std::int64_t result = 0;
};
LastRun last_run(const ThreadRegisters& registers, const Springboard& board, const Mailbox& box, int fd);

// For the tests: what the page of code holds.
std::span<const std::uint64_t> springboard_code();

// Maps it, by a thread that stands behind a `syscall`; `view` is its data as this process has them.
Result<Springboard> build_springboard(TracedThread& thread, const RemoteMemory& memory, std::uint32_t records,
                                      MappedPages& view);
Result<void> remove_springboard(TracedThread& thread, const RemoteMemory& memory, const Springboard& board);

}  // namespace exo::kvm
