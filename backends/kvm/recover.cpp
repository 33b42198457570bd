#include "backends/kvm/recover.h"

#include <asm/unistd.h>
#include <linux/kvm.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <iterator>
#include <utility>

#include "backends/host/process.h"
#include "backends/kvm/child_events.h"
#include "backends/kvm/threads.h"
#include "backends/kvm/vcpu.h"

namespace exo::kvm {
namespace {

using namespace std::chrono_literals;

constexpr auto recover_lock_limit = 15s;
constexpr auto recover_settle_limit = 5s;

// What the VMM is to see of the KVM_RUN that was under way: its own exit, or that it was interrupted. A debug
// exit was ours.
Result<std::uint64_t> result_for_vmm(const ThreadRegisters& registers, const JournalEntry& entry,
                                     const RemoteMemory& memory, std::uint32_t index, int vcpu_fd) {
    const auto interrupted = static_cast<std::uint64_t>(-EINTR);
    const auto box = TRY(memory.get<Mailbox>(entry.board.mailbox(index)));
    const auto last = last_run(registers, entry.board, box, vcpu_fd);
    if (!last.made || last.result != 0) return interrupted;
    for (const auto& run : entry.runs) {
        if (run.fd != vcpu_fd) continue;
        const auto reason = TRY(memory.get<std::uint32_t>(run.address + offsetof(kvm_run, exit_reason)));
        return reason == KVM_EXIT_DEBUG ? interrupted : 0;
    }
    return interrupted;
}

// A thread that came out of its last system call on the springboard, or is still in it.
Result<bool> put_back(const ThreadRecord& record, const JournalEntry& entry, const RemoteMemory& memory,
                      std::uint32_t index, int vcpu_fd) {
    auto thread = TRY(TracedThread::seize(static_cast<pid_t>(record.tid)));
    for (;;) {
        thread.interrupt();
        const auto stop = thread.wait();
        if (stop.kind == ThreadStop::Kind::ended) return false;
        const auto registers = TRY(thread.registers());
        const bool on_board = entry.board.holds(registers.rip);
        if (record.mask_saved != 0) CHECK_OK(thread.set_signal_mask(record.signal_mask));
        if (on_board) {
            const auto result = TRY(result_for_vmm(registers, entry, memory, index, vcpu_fd));
            // Before it enters the guest again.
            const auto debug_off = entry.board.arguments(index);
            CHECK_OK(memory.put(debug_off, kvm_guest_debug{}));
            CHECK_OK(call_at(thread, entry.board.code, __NR_ioctl,
                             std::to_array<std::uint64_t>(
                                 {static_cast<std::uint64_t>(vcpu_fd), KVM_SET_GUEST_DEBUG, debug_off})));
            auto home = record.home;
            // A home that repeats its own system call is none of KVM_RUN's.
            if (static_cast<std::int64_t>(home.rax) == -EINTR) home.rax = result;
            CHECK_OK(thread.set_registers(home));
        }
        thread.detach(stop.kind == ThreadStop::Kind::signal ? stop.signal : 0);
        return on_board;
    }
}

// Takes each vCPU out of the guest once more, to switch KVM's debugging off.
Result<void> switch_debugging_off(const Vm& vm, const JournalEntry& entry, const RemoteMemory& memory,
                                  Tracer& tracer) {
    const auto threads = find_threads(vm, 20);
    for (std::uint32_t i = 0; i < vm.vcpus.size(); ++i) {
        Vcpu vcpu{vm.vcpus[i], i, memory, tracer};
        const auto row = threads.by_vcpu.find(vcpu.handle().fd);
        if (row == threads.by_vcpu.end()) continue;  // paused: it had no debugging armed
        const auto record = TRY(memory.get<ThreadRecord>(entry.board.record(i)));
        vcpu.use(&entry.board);
        CHECK_OK(vcpu.begin_stop(row->second));
        const auto exit = TRY(vcpu.wait_exit(Clock::now() + recover_settle_limit));
        if (exit.kind != RunExit::Kind::interrupted)
            return fail(Errc::timed_out, "vCPU " + std::to_string(vcpu.handle().id) + " does not stop");
        vcpu.forget_guest_debug();
        CHECK_OK(vcpu.set_guest_debug({}));
        // One that has been woken since, and halts by itself, wakes once more than it should: harmless.
        const kvm_mp_state runnable{KVM_MP_STATE_RUNNABLE};
        if (record.halted != 0)
            CHECK_OK(vcpu.ioctl(KVM_SET_MP_STATE, std::as_bytes(std::span{&runnable, 1})));
        CHECK_OK(vcpu.release());
    }
    return {};
}

Result<void> unmap_board(const Vm& vm, const JournalEntry& entry, const RemoteMemory& memory,
                         Tracer& tracer) {
    const auto threads = find_threads(vm, 20);
    for (std::uint32_t i = 0; i < vm.vcpus.size(); ++i) {
        Vcpu vcpu{vm.vcpus[i], i, memory, tracer};
        const auto row = threads.by_vcpu.find(vcpu.handle().fd);
        if (row == threads.by_vcpu.end()) continue;
        CHECK_OK(vcpu.begin_stop(row->second));
        const auto exit = TRY(vcpu.wait_exit(Clock::now() + recover_settle_limit));
        if (exit.kind != RunExit::Kind::interrupted) continue;
        CHECK_OK(vcpu.make_exit_harmless());
        CHECK_OK(tracer.run([&] { return remove_springboard(vcpu.thread(), memory, entry.board); }));
        return vcpu.release();
    }
    return {};  // some bytes of the VMM's memory are lost, no more
}

Result<void> undo(const JournalEntry& entry, std::vector<std::string>& done) {
    const RemoteMemory memory{entry.vmm_pid};
    watch_children();
    const Vm vm = TRY(find_vm({entry.vmm_pid, entry.vm_fd}));
    // The guest's bytes first: a vCPU may run into them at any time.
    for (const auto& patch : entry.patches) {
        const auto now = TRY(memory.get<std::uint8_t>(patch.host));
        if (now == 0xcc && patch.original != 0xcc) CHECK_OK(memory.put(patch.host, patch.original));
    }
    if (!entry.patches.empty()) done.emplace_back("took out the breakpoints");
    for (const auto& run : entry.runs) {
        CHECK_OK(memory.put(run.address + offsetof(kvm_run, kvm_valid_regs), run.valid));
        CHECK_OK(memory.put<std::uint8_t>(run.address + offsetof(kvm_run, immediate_exit), 0));
    }
    if (!entry.board.present()) return {};
    std::size_t count = 0;
    for (std::uint32_t i = 0; i < entry.board.records; ++i) {
        const auto record = TRY(memory.get<ThreadRecord>(entry.board.record(i)));
        if (record.magic != ThreadRecord::magic_value || record.tid == 0) continue;
        if (i >= vm.vcpus.size()) continue;
        count += TRY(put_back(record, entry, memory, i, vm.vcpus[i].fd)) ? 1U : 0U;
        CHECK_OK(memory.put(entry.board.record(i), ThreadRecord{.halted = record.halted}));
    }
    if (count > 0) done.push_back("put " + std::to_string(count) + " threads of the VMM back");
    Tracer tracer;
    CHECK_OK(switch_debugging_off(vm, entry, memory, tracer));
    done.emplace_back("switched KVM's guest debugging off");
    return unmap_board(vm, entry, memory, tracer);
}

}  // namespace

Result<void> begin_journal(JournalEntry& journal, const Vm& vm, const RemoteMemory& memory) {
    journal.owner_pid = ::getpid();
    journal.owner_start = start_time_of(::getpid()).value_or(0);
    journal.board = {};
    journal.runs.clear();
    journal.patches.clear();
    for (const auto& vcpu : vm.vcpus) {
        const auto valid = TRY(memory.get<std::uint64_t>(vcpu.run + offsetof(kvm_run, kvm_valid_regs)));
        journal.runs.push_back({vcpu.fd, vcpu.run, valid});
    }
    return write_journal(journal);
}

Result<std::vector<std::string>> recover_guest(const JournalEntry& entry) {
    std::vector<std::string> done;
    const auto lock = TRY(lock_journal(entry, recover_lock_limit));
    if (!lock.valid()) return done;
    CHECK_OK(undo(entry, done));
    remove_journal(entry);
    return done;
}

Result<void> recover_stale(const JournalEntry& journal) {
    for (const auto& entry : read_journals()) {
        if (entry.vmm_pid != journal.vmm_pid || entry.vm_fd != journal.vm_fd) continue;
        if (!entry.vmm_alive() || entry.vmm_start != journal.vmm_start) {
            remove_journal(entry);
            continue;
        }
        if (entry.owner_pid == ::getpid()) continue;
        if (entry.owner_alive())
            return fail(Errc::busy, "exogdb process " + std::to_string(entry.owner_pid) +
                                        " has this guest; connect to that one, or end it");
        CHECK_OK(recover_guest(entry));
    }
    return {};
}

}  // namespace exo::kvm
