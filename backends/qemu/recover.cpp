#include "backends/qemu/recover.h"

#include <unistd.h>

#include <chrono>
#include <thread>

#include "backends/qemu/stub_client.h"
#include "backends/qemu/stub_control.h"

namespace exo::qemu {
namespace {

using namespace std::chrono_literals;

constexpr auto lock_limit = 15s;   // of the one that was faster, on a busy host
constexpr auto client_limit = 5s;  // until QEMU has seen that the client of its stub is dead
constexpr auto look_interval = 20ms;

// What QEMU could not take out itself: kernel text, with all vCPUs in user mode under KPTI.
Result<void> undo_patches(Monitor& monitor, const Process& process, StubClient& client,
                          const JournalEntry& entry) {
    if (entry.patches.empty()) return {};
    GuestMemory memory{monitor, process};
    CHECK_OK(memory.load());
    for (const auto& patch : entry.patches) CHECK_OK(undo_patch(client, memory, patch));
    return {};
}

// Through the stub that is still open: it listens again once its client has died.
Result<void> clean_through_stub(Monitor& monitor, const Process& process, const JournalEntry& entry,
                                std::vector<std::string>& done) {
    const auto client = TRY(StubClient::connect(entry.stub_path, process));  // its `?` drops the breakpoints
    CHECK_OK(undo_patches(monitor, process, *client, entry));
    done.emplace_back("took out the breakpoints");
    if (!entry.was_running) return client->leave_physical_mode();
    CHECK_OK(client->detach());
    done.emplace_back("let the guest run");
    return {};
}

// A stub whose client has died is free once QEMU's main loop has seen it.
Result<Chardevs> chardevs_without_client(Monitor& monitor) {
    const auto deadline = std::chrono::steady_clock::now() + client_limit;
    for (;;) {
        auto chardevs = TRY(query_chardevs(monitor));
        const bool has_client = chardevs.stub && chardevs.stub->connected;
        if (!has_client || std::chrono::steady_clock::now() > deadline) return chardevs;
        std::this_thread::sleep_for(look_interval);
    }
}

}  // namespace

Result<void> undo_patch(StubClient& client, GuestMemory& memory, const JournalPatch& patch) {
    constexpr std::byte trap{0xcc};  // int3
    const std::byte original{patch.original};
    const PhysicalAddress place{patch.place};
    std::byte now{};
    CHECK_OK(memory.read(place, {&now, 1}));
    if (now != trap || original == trap) return {};
    return client.write_physical(place, {&original, 1});
}

Result<std::vector<std::string>> recover_guest(Monitor& monitor, const Process& process,
                                               const JournalEntry& entry) {
    std::vector<std::string> done;
    const auto lock = TRY(lock_journal(entry, lock_limit));
    if (!lock.valid()) return done;
    const auto chardevs = TRY(chardevs_without_client(monitor));
    const bool ours = chardevs.stub && !entry.stub_path.empty() &&
                      chardevs.stub->device.starts_with("unix:" + entry.stub_path);
    if (ours && chardevs.stub->connected)
        return fail(Errc::busy, "QEMU's gdb stub at " + entry.stub_path + " has a client");
    if (ours) {
        CHECK_OK(clean_through_stub(monitor, process, entry, done));
        CHECK_OK(stop_stub(monitor, entry.stub_path, entry.stub_directory));
        done.emplace_back("closed QEMU's gdb stub");
    }
    if (!entry.user_stub.empty() && (ours || !chardevs.stub)) {
        CHECK_OK(restore_user_stub(monitor, entry.user_stub));
        done.emplace_back("opened the user's own gdb stub again");
    }
    remove_journal(entry.qemu_pid);
    return done;
}

Result<void> recover_stale(Monitor& monitor, const Process& process) {
    for (const auto& entry : read_journals()) {
        if (!entry.qemu_alive()) remove_journal(entry.qemu_pid);
        if (!entry.is_of(process)) continue;
        if (entry.owner_pid != ::getpid() && entry.owner_alive())
            return fail(Errc::busy,
                        "another exogdb, pid " + std::to_string(entry.owner_pid) + ", has this guest");
        CHECK_OK(recover_guest(monitor, process, entry));
    }
    return {};
}

}  // namespace exo::qemu
